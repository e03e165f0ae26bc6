"""On the device: timm's mixing, noise of each example's own, torchvision's jitter."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from beit_jax.data.ops import colour
from beit_jax.tasks import on_device
from tests.shared import shared_path


def some_images(batch=4, height=20, width=24):
    noise = np.random.default_rng(0).integers(0, 256, (batch, 4, 4, 3), np.uint8)
    return np.stack([Image.fromarray(x).resize((width, height)) for x in noise])


def timm_parameters(case, batch):
    """timm's recorded draws as (B, 5) rows."""
    lams = case.get("elem_lam", case.get("batch_params", [])[:1])
    cutmix = case.get("elem_cutmix", case.get("batch_params", [])[1:])
    boxes = iter(case.get("boxes", []))
    rows = []
    for lam, cut in zip(lams, cutmix, strict=True):
        *box, lam = next(boxes) if cut else (0, 0, 0, 0, lam)
        rows.append((lam, *box))
    if case.get("mode") == "pair":
        rows += rows[::-1]
    return np.array(rows * (batch // len(rows)), np.float32)


def test_mix_is_timms():
    folder = shared_path("oracles/augment")
    arrays = np.load(folder / "arrays.npz")
    cases = json.loads((folder / "meta.json").read_text())["mixup_cases"]
    image = arrays["mixup/x"].transpose(0, 2, 3, 1)
    assert {case.get("mode", "batch") for case in cases} == {"batch", "elem", "pair"}
    for number, case in enumerate(cases):
        smoothing = case.get("label_smoothing", 0.1)
        targets = on_device.soft_targets(arrays["mixup/y"], 7, smoothing)
        parameters = timm_parameters(case, len(image))
        mixed, targets = jax.jit(on_device.mix)(image, targets, parameters)
        want = arrays[f"mixup/{number}/x"].transpose(0, 2, 3, 1)
        np.testing.assert_allclose(mixed, want, rtol=0, atol=1e-6)
        want = arrays[f"mixup/{number}/target"]
        np.testing.assert_allclose(targets, want, rtol=0, atol=1e-6)


def test_a_row_that_keeps_all_of_itself_stays_as_it_is():
    image = jnp.asarray(some_images(2), jnp.float32)
    targets = on_device.soft_targets(jnp.array([0, 2]), 3, 0.1)
    parameters = jnp.array([[1.0, 0, 0, 0, 0], [0.5, 0, 0, 0, 0]])
    mixed, mixed_targets = on_device.mix(image, targets, parameters)
    np.testing.assert_array_equal(mixed[0], image[0])
    np.testing.assert_array_equal(mixed_targets[0], targets[0])
    np.testing.assert_array_equal(mixed[1], (image[0] + image[1]) / 2)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_mix_keeps_the_dtype(dtype):
    image, targets = jnp.ones((2, 4, 4, 3), dtype), jnp.ones((2, 3))
    parameters = jnp.array([[0.3, 0, 0, 0, 0], [0.75, 0, 2, 0, 2]])
    mixed, targets = on_device.mix(image, targets, parameters)
    assert mixed.dtype == dtype and targets.dtype == jnp.float32


def test_smoothing_is_spread_over_all_classes():
    got = on_device.soft_targets(jnp.array([2, 0]), 4, 0.1)
    np.testing.assert_allclose(got[0], [0.025, 0.025, 0.925, 0.025], atol=1e-7)
    assert got[1].argmax() == 0


def test_erase_fills_the_box_with_normal_noise_and_nothing_else():
    boxes = jnp.array([[8, 4, 50, 60], [0, 0, 0, 0], [0, 34, 64, 30]])
    image = jnp.full((3, 64, 64, 3), 7.0)
    seeds = jnp.arange(3, dtype=jnp.uint32)
    got = np.array(jax.jit(on_device.erase)(image, boxes, seeds))
    for picture, (top, left, height, width) in zip(got, np.asarray(boxes), strict=True):
        box = picture[top : top + height, left : left + width].copy()
        picture[top : top + height, left : left + width] = 7.0
        assert (picture == 7.0).all()
        if box.size:
            assert abs(box.mean()) < 0.05 and abs(box.std() - 1) < 0.05
            assert len(np.unique(box)) > 0.99 * box.size  # every pixel and channel


def test_noise_depends_on_the_examples_own_seed_only():
    boxes = jnp.array([[1, 2, 9, 9], [0, 0, 5, 6], [1, 2, 9, 9]])
    seeds = jnp.array([5, 2**32 - 1, 6], jnp.uint32)
    whole = on_device.erase(jnp.zeros((3, 12, 12, 3)), boxes, seeds)
    alone = on_device.erase(jnp.zeros((1, 12, 12, 3)), boxes[1:2], seeds[1:2])
    np.testing.assert_array_equal(whole[1:2], alone)
    assert (whole[0] != whole[2]).any()


def test_jitter_is_the_hosts_to_the_last_level():
    rng = np.random.default_rng(0)
    images = some_images(24)
    steps = [colour.jitter_steps(0.4, rng.random(colour.NUMBERS)) for _ in images]
    pairs = zip(images, steps, strict=True)
    want = [np.asarray(colour.apply(Image.fromarray(i), s)) for i, s in pairs]
    got = jax.jit(on_device.jitter)(images, np.stack([colour.pack(s) for s in steps]))
    np.testing.assert_array_equal(got, np.stack(want))


@pytest.mark.parametrize("kind", colour.KINDS)
def test_each_step_of_jitter_changes_the_image(kind):
    images = some_images(2)
    parameters = np.stack([colour.pack([(kind, 0.6)])] * 2)
    assert np.abs(np.asarray(on_device.jitter(images, parameters)) - images).mean() > 1


def test_jitter_by_factors_of_one_changes_nothing():
    images = some_images()
    parameters = np.stack([colour.pack([(k, 1.0) for k in colour.KINDS])] * 4)
    np.testing.assert_allclose(on_device.jitter(images, parameters), images, atol=1e-4)
