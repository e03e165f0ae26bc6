"""Histograms of oriented gradients against those of MaskFeat's official code."""

import jax
import numpy as np
import pytest

from beit_jax.targets.hog import HOG, _bins, _gaussian, _gradients
from tests.agreement import assert_agrees
from tests.models import official

GRID, PATCH = (2, 2), 16


def last(image):
    return np.moveaxis(image, 1, -1)


@pytest.mark.parametrize("kind", ["plain", "gauss"])
@pytest.mark.parametrize(
    "images", ["real_uint8", "flat_uint8", "random"], ids=["real", "flat", "random"]
)
def test_targets_are_those_of_the_official_layer(images, kind):
    arrays, _ = official.load("hog")
    name = images.replace("_uint8", "_raw255")
    wanted = arrays[f"out/{name}_{kind}_target"]
    target = HOG(GRID, PATCH, gaussian=kind == "gauss")
    got = jax.jit(target)({}, last(arrays[f"in/{images}"]))
    assert_agrees("oracle hog", f"{kind}: {name}", got, wanted, atol=1e-5)


def test_the_gaussian_window_is_the_official_one():
    arrays, _ = official.load("hog")
    window = _gaussian(16, 16)
    assert_agrees("oracle hog", "window", window, arrays["out/gaussian_kernel"], 1e-7)
    np.testing.assert_array_equal(_gaussian(32, 24)[16:, 16:], window[:, :8])


def test_every_direction_falls_into_the_bin_of_its_angle():
    x, y = np.mgrid[-1020:1021:7, -1020:1021:3].astype(np.float32)
    exact = np.floor(np.arctan2(x.astype(float), y.astype(float)) / np.pi * 9) % 9
    still = (x == 0) & (y == 0)
    np.testing.assert_array_equal(_bins(x, y)[~still], exact[~still])


def test_gradients_of_whole_numbers_are_whole():
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3)).astype(np.float32)
    for gradient in jax.jit(_gradients)(image):
        np.testing.assert_array_equal(gradient, np.round(gradient))


def test_brighter_pictures_of_more_contrast_have_the_same_target():
    image = np.random.default_rng(0).integers(0, 60, (1, 32, 32, 3))
    target = HOG(GRID, PATCH)
    one, other = (
        target({}, x.astype(np.uint8)) for x in (image, image * [1, 2, 4] + 9)
    )
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_strokes_run_along_an_edge():
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[:, :, 20:] = 255  # an upright edge in the third column of cells
    target = HOG(GRID, PATCH)
    picture = np.asarray(target.paint({}, target({}, image), image))[0, 8:16, :, 0]
    assert picture[:, :16].max() == 0
    drawn = picture[:, 16:24].astype(float)
    assert drawn.sum(0).max() > 2 * drawn.sum(1).max()


def test_patches_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="patch_size=12 must be a multiple of 8"):
        HOG(GRID, 12)
