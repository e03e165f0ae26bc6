"""Colour jitter: Pillow's and torchvision's pixels, whether or not cropped early."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from beit_jax.data.ops import colour
from tests.shared import shared_path

ENHANCE = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}
ORDERS = list(itertools.permutations(colour.KINDS))


def some_image(height=24, width=32):
    """Smooth, so that images differ in colour and not only in noise."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def with_pillow(image, steps):
    for kind, factor in steps:
        image = ENHANCE[kind](image).enhance(factor)
    return image


def test_steps_give_the_pixels_of_torchvision():
    folder = shared_path("oracles/augment")
    arrays = np.load(folder / "arrays.npz")
    cases = json.loads((folder / "meta.json").read_text())["jitter_cases"]
    compared = 0
    for number, case in enumerate(cases):
        if "hue" not in dict(case["steps"]):  # left out: BEiT does without
            image = Image.fromarray(arrays[f"randaug/src_{case['image']}"])
            got = colour.apply(image, case["steps"])
            np.testing.assert_array_equal(got, arrays[f"jitter/{number}"])
            compared += 1
    assert compared == 36


@pytest.mark.parametrize("kind", colour.KINDS)
def test_every_value_goes_where_pillow_sends_it(kind):
    red = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(np.stack([red, red.T, 255 - red], axis=-1))
    for factor in np.linspace(0, 2, 81):
        got = colour.apply(image, [(kind, factor)])
        np.testing.assert_array_equal(got, ENHANCE[kind](image).enhance(factor))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("factors", [(0.61, 1.38, 0.77), (1.4, 0.6, 1.23)])
def test_steps_in_any_order_are_pillows(order, factors):
    steps = list(zip(order, factors, strict=True))
    got = colour.apply(some_image(), steps)
    np.testing.assert_array_equal(got, with_pillow(some_image(), steps))


@pytest.mark.parametrize(
    "order",
    [*ORDERS, ("brightness", "saturation"), ("contrast", "saturation", "contrast")],
)
def test_cropping_early_changes_no_pixel(order):
    steps = [(kind, 0.7 + 0.3 * i) for i, kind in enumerate(order)]
    whole = np.asarray(colour.apply(some_image(), steps))
    crop = colour.apply_then_crop(some_image(), steps, (5, 3, 11, 20))
    np.testing.assert_array_equal(crop, whole[5:16, 3:23])


def test_factors_and_orders_are_uniform():
    u = np.random.default_rng(0).random((12_000, colour.NUMBERS))
    drawn = [colour.jitter_steps(0.4, row) for row in u]
    orders = [tuple(kind for kind, _ in steps) for steps in drawn]
    assert min(orders.count(order) for order in ORDERS) > 1800  # 2000 expected
    for kind in colour.KINDS:
        factors = np.array([dict(steps)[kind] for steps in drawn])
        assert 0.6 <= factors.min() < 0.601 and 1.399 < factors.max() <= 1.4
        assert abs(factors.mean() - 1) < 0.01
        assert abs(factors.std() - 0.8 / 12**0.5) < 0.005


def test_a_strength_above_one_gives_no_negative_factor():
    assert colour.jitter_steps(1.5, np.zeros(4))[0] == ("brightness", 0.0)


def test_a_negative_strength_is_refused():
    with pytest.raises(ValueError, match=r"strength=-0\.1 .* must be >= 0"):
        colour.jitter_steps(-0.1, np.zeros(4))


def test_an_unknown_step_is_refused():
    with pytest.raises(ValueError, match="no colour step 'hue'.*brightness, contrast"):
        colour.apply(some_image(), [("hue", 0.1)])
