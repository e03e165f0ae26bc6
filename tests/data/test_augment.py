"""Crops: PIL's pixels, torchvision's law of boxes, views that show one box."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from beit_jax.data import augment, draws
from tests.shared import shared_path

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos3": Image.Resampling.LANCZOS,
}


def draw(first, count):
    return draws.stream(0, "test", tf.range(first, first + count, dtype=tf.int64))


def noise(*shape):
    return np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)


def as_pil(image, box, size, method):
    """Across, then down, in two calls: PIL 13 would choose the order by cost."""
    top, left, height, width = (int(x) for x in box)
    cut = Image.fromarray(image[top : top + height, left : left + width])
    across = cut.resize((size[1], height), FILTERS[method])
    return np.asarray(across.resize(size[::-1], FILTERS[method]))


@pytest.mark.parametrize("method", FILTERS)
@pytest.mark.parametrize("size", [(32, 32), (12, 20), (70, 50)])
def test_a_stack_is_resized_as_pil_does_it(method, size):
    images = noise(20, 40, 48, 3)
    boxes = augment.random_box(draw(0, 20), (40, 48), augment.Crop())
    ours = augment.crop_resize(tf.constant(images), boxes, size, method).numpy()
    pil = [as_pil(*pair, size, method) for pair in zip(images, boxes, strict=True)]
    difference = np.abs(ours.astype(int) - np.stack(pil))
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.01 and (difference > 1).mean() < 1e-4


@pytest.mark.parametrize(
    ("method", "mean", "beyond"), [("bicubic", 0.25, 0.01), ("lanczos3", 0.36, 0.025)]
)
def test_one_image_is_resized_nearly_as_pil_does_it(method, mean, beyond):
    image, box = noise(160, 150, 3), tf.constant([11, 20, 120, 100])
    ours = augment.crop_resize(tf.constant(image), box, (64, 64), method).numpy()
    difference = np.abs(ours.astype(int) - as_pil(image, box, (64, 64), method))
    assert difference.mean() <= mean
    assert (difference > 1).mean() < beyond


def ks_distance(a, b):
    """Largest difference between two samples' distribution functions."""
    at = np.sort(np.concatenate([a, b]))
    below = [np.searchsorted(np.sort(x), at, side="right") / len(x) for x in (a, b)]
    return np.abs(below[0] - below[1]).max()


@pytest.mark.parametrize(("height", "width"), [(375, 500), (300, 200), (150, 900)])
def test_boxes_follow_the_official_law(height, width):
    """Against 3,000 recorded boxes; in 150x900 many fall back to the centre."""
    arrays = np.load(shared_path("oracles/augment/arrays.npz"))
    want = arrays[f"rrc/w{width}_h{height}"].astype(float)
    ours = augment.random_box(draw(0, 5_000), (height, width), augment.Crop())
    ours = ours.numpy().astype(float)
    critical = 1.63 * np.sqrt(1 / len(want) + 1 / len(ours))  # p = 0.01
    for law in (
        lambda box: box[:, 2] * box[:, 3],
        lambda box: box[:, 3] / box[:, 2],
        lambda box: box[:, 0],
        lambda box: box[:, 1],
    ):
        assert ks_distance(law(want), law(ours)) < critical


def test_boxes_lie_inside_the_image_and_reach_its_edges():
    top, left, height, width = (
        augment.random_box(draw(0, 5_000), (20, 30), augment.Crop()).numpy().T
    )
    assert min(top.min(), left.min()) == 0 and min(height.min(), width.min()) > 0
    assert (top + height).max() == 20 and (left + width).max() == 30


def test_where_no_box_fits_the_largest_centred_one_is_taken():
    tall, wide = (
        augment.random_box(draw(0, 3), size, augment.Crop(min_scale=1.0)).numpy()
        for size in ((400, 30), (30, 400))
    )
    np.testing.assert_array_equal(tall, [[180, 0, 40, 30]] * 3)
    np.testing.assert_array_equal(wide, [[0, 180, 30, 40]] * 3)


def test_two_views_show_one_box():
    """In an image whose pixels are their coordinates, equal places look equal."""
    ramp = np.zeros((64, 64, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(64)[:, None] * 4, np.arange(64) * 4
    box = augment.random_box(draw(0, 8), (64, 64), augment.Crop(min_scale=0.3))
    stack = tf.constant(np.stack([ramp] * 8))
    large = augment.crop_resize(stack, box, (32, 32), "bicubic").numpy()
    small = augment.crop_resize(stack, box, (16, 16), "lanczos3").numpy()
    halved = large.reshape(8, 16, 2, 16, 2, 3).mean((2, 4))
    inner = np.abs(halved - small)[:, 2:-2, 2:-2]
    assert inner.max() <= 4  # one pixel of the image


def test_the_size_of_a_stack_does_not_change_a_pixel():
    images = tf.constant(noise(12, 32, 32, 3))
    boxes = augment.random_box(draw(0, 12), (32, 32), augment.Crop())
    whole = augment.crop_resize(images, boxes, (24, 24), "bicubic")
    parts = [
        augment.crop_resize(images[i : i + n], boxes[i : i + n], (24, 24), "bicubic")
        for i, n in ((0, 1), (1, 4), (5, 7))
    ]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_flip_mirrors_only_the_chosen():
    images = noise(2, 4, 5, 3)
    out = augment.flip(tf.constant(images), tf.constant([True, False])).numpy()
    np.testing.assert_array_equal(out[0], images[0, :, ::-1])
    np.testing.assert_array_equal(out[1], images[1])


def test_centre_crop_of_an_image_of_the_right_size_is_that_image():
    image = noise(32, 32, 3)
    out = augment.centre_crop(tf.constant(image), (32, 32), "bicubic")
    np.testing.assert_array_equal(out, image)


@pytest.mark.parametrize("shape", [(37, 53), (53, 37), (300, 301)])
@pytest.mark.parametrize("scale", [1.0, 224 / 256])
def test_centre_crop_is_torchvisions_resize_and_centre_crop(shape, scale):
    image = noise(*shape, 3)
    short = int(24 / scale)
    resized = [int(short * side / min(shape)) for side in shape]
    top, left = (round((side - 24) / 2) for side in resized)
    pil = Image.fromarray(image).resize(resized[::-1], FILTERS["bicubic"])
    want = np.asarray(pil)[top : top + 24, left : left + 24].astype(int)
    one = augment.centre_crop(tf.constant(image), (24, 24), "bicubic", scale)
    stack = augment.centre_crop(tf.constant(image[None]), (24, 24), "bicubic", scale)
    assert one.shape == (24, 24, 3)
    assert np.abs(one.numpy() - want).mean() < 0.3
    np.testing.assert_array_equal(stack[0], one)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_scal": 0.5}, "no setting 'min_scal'; did you mean 'min_scale'"),
        ({"min_scale": 0.9, "max_scale": 0.5}, "min_scale <= max_scale"),
        ({"min_ratio": 0.0}, "0 < min_ratio"),
    ],
)
def test_wrong_crop_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        augment.Crop.from_config(settings)
