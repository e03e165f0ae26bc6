"""Random erasing: the law of timm's boxes."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from beit_jax.data.ops import erasing
from tests.shared import shared_path


def some_boxes(count, height=224, width=224, **settings):
    u = np.random.default_rng(0).random((count, erasing.NUMBERS))
    boxes = [erasing.erase_box(row, height, width, **settings) for row in u]
    return np.array(boxes)


@pytest.mark.parametrize("side", range(4), ids=["top", "left", "height", "width"])
def test_boxes_have_the_law_of_timm(side):
    want = np.load(shared_path("oracles/augment/arrays.npz"))["erasing/boxes_224"]
    got = some_boxes(8000, probability=1.0)
    assert (want >= 0).all() and (got[:, 2:] > 0).all()
    assert ks_2samp(got[:, side], want[:, side]).pvalue > 0.01


@pytest.mark.parametrize("law", ["area", "aspect"])
def test_areas_and_aspects_have_the_law_of_timm(law):
    def of(boxes):
        h, w = boxes[:, 2].astype(float), boxes[:, 3]
        return h * w if law == "area" else h / w

    want = np.load(shared_path("oracles/augment/arrays.npz"))["erasing/boxes_224"]
    got = some_boxes(8000, probability=1.0)
    assert ks_2samp(of(got), of(want)).pvalue > 0.01


def test_a_box_follows_from_its_uniforms():
    u = np.zeros(erasing.NUMBERS)
    u[1:5] = 0, 0.5, 0.999, 0  # 2 % of the area, a square, lowest, leftmost
    assert erasing.erase_box(u, 224, 224) == (224 - 32, 0, 32, 32)
    u[1:5] = 0, 0, 0, 0.999  # a third as high as wide
    assert erasing.erase_box(u, 224, 224) == (0, 224 - 58, 17, 58)


@pytest.mark.parametrize("probability", [0.0, 0.25, 0.6])
def test_boxes_are_as_frequent_as_asked(probability):
    erased = some_boxes(8000, probability=probability)[:, 2] > 0
    assert abs(erased.mean() - probability) < 0.02


def test_a_box_never_reaches_from_side_to_side_but_touches_all_sides():
    top, left, h, w = some_boxes(4000, 6, 60, probability=1.0).T
    assert h.max() == 5 and (h == 0).any()  # 0: all ten tries were too high
    assert (top >= 0).all() and (top + h <= 6).all() and (left + w <= 60).all()
    found = h > 0
    assert (top[found] == 0).any() and (left[found] == 0).any()
    assert (top + h == 6).any() and (left + w == 60).any()


def test_seeds_differ_and_fill_32_bits():
    u = np.random.default_rng(0).random((1000, erasing.NUMBERS))
    seeds = np.array([erasing.erase_seed(row) for row in u])
    assert seeds.dtype == np.uint32 and len(set(seeds)) == 1000
    assert seeds.max() > 0.99 * 2**32 and seeds.min() < 0.01 * 2**32
