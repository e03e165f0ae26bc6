"""Boxes and crops: the published laws, PIL's pixels."""

import numpy as np
import pytest
from PIL import Image

from beit_jax.data.ops import geometry
from beit_jax.data.ops.geometry import FILTERS, Box
from tests.shared import shared_path


def boxes(count, height, width, **limits):
    numbers = np.random.RandomState(0).rand(count, geometry.BOX_NUMBERS)
    return np.array(
        [geometry.random_box(u, height, width, **limits) for u in numbers]
    ).astype(float)


@pytest.fixture(scope="module")
def oracle():
    return np.load(shared_path("oracles/augment/arrays.npz"))


def test_crops_are_resized_to_the_official_pixels(oracle):
    """25 recorded crops: both views of BEiT, and odd sizes; equal to the last bit."""
    import json

    cases = shared_path("oracles/augment/meta.json").read_text()
    for number, case in enumerate(json.loads(cases)["resize_cases"]):
        image = Image.fromarray(oracle["images"][case["image"]])
        view = geometry.crop(image, Box(*case["box_top_left_h_w"]))
        resample = FILTERS[case["interpolation"]]
        view = geometry.resize(view, tuple(case["size_h_w"]), resample)
        np.testing.assert_array_equal(view, oracle[f"resize/{number}"])


def ks_distance(a, b):
    """Largest difference between two samples' distribution functions."""
    at = np.sort(np.concatenate([a, b]))
    below = [np.searchsorted(np.sort(x), at, side="right") / len(x) for x in (a, b)]
    return np.abs(below[0] - below[1]).max()


@pytest.mark.parametrize(("height", "width"), [(375, 500), (300, 200), (150, 900)])
def test_boxes_follow_the_official_law(oracle, height, width):
    """Against 3,000 recorded boxes; in 150x900 many fall back to the centre."""
    want = oracle[f"rrc/w{width}_h{height}"].astype(float)
    ours = boxes(5_000, height, width)
    critical = 1.63 * np.sqrt(1 / len(want) + 1 / len(ours))  # p = 0.01
    for law in (
        lambda box: box[:, 2] * box[:, 3],
        lambda box: box[:, 3] / box[:, 2],
        lambda box: box[:, 0],
        lambda box: box[:, 1],
    ):
        assert ks_distance(law(want), law(ours)) < critical


def test_boxes_lie_inside_the_image_and_reach_its_edges():
    top, left, height, width = boxes(5_000, 20, 30).T
    assert min(top.min(), left.min()) == 0 and min(height.min(), width.min()) > 0
    assert (top + height).max() == 20 and (left + width).max() == 30


def test_where_no_box_fits_the_largest_centred_one_is_taken():
    tall, wide = (boxes(3, *size, scale=(1.0, 1.0)) for size in ((400, 30), (30, 400)))
    np.testing.assert_array_equal(tall, [[180, 0, 40, 30]] * 3)
    np.testing.assert_array_equal(wide, [[0, 180, 30, 40]] * 3)


def test_square_boxes_follow_the_law_of_the_published_augmentation():
    numbers = np.random.RandomState(0).rand(4_000, 5)
    made = np.array([geometry.square_box(u, 500, 400, 200) for u in numbers])
    top, left, height, width = made.T
    np.testing.assert_array_equal(height, width)
    # The square of 400 is resized to 225..300 px, of which 200 are cut out.
    assert height.min() == round(400 * 200 / 300) and height.max() == round(
        400 * 200 / 225
    )
    resized = 400 * 200 / height
    assert abs(resized.mean() - 262.5) < 1.5
    assert 0 <= top.min() < 5 and 495 < (top + height).max() <= 500
    assert 0 <= left.min() < 5 and 395 < (left + width).max() <= 400


def test_square_boxes_of_small_images_are_never_enlarged_more_than_needed():
    numbers = np.random.RandomState(0).rand(200, 5)
    made = np.array([geometry.square_box(u, 40, 30, 32) for u in numbers])
    assert (made[:, 2:] == 30).all() and {*made[:, 0]} == set(range(11))


def test_padded_boxes_shift_by_up_to_the_padding():
    numbers = np.random.RandomState(0).rand(500, 2)
    made = np.array([geometry.padded_box(u, 8, 6, (8, 6), 2) for u in numbers])
    assert {*made[:, 0]} == {*made[:, 1]} == {-2, -1, 0, 1, 2}
    assert (made[:, 2:] == (8, 6)).all()


def test_beyond_the_image_pixels_are_black_or_as_asked():
    image, box = Image.new("RGB", (4, 4), "white"), Box(-1, 2, 4, 4)
    inside = np.zeros((4, 4, 1), bool)
    inside[1:, :2] = True
    for beyond in ((0, 0, 0), (9, 8, 7)):
        shown = np.asarray(geometry.crop(image, box, beyond))
        np.testing.assert_array_equal(shown, np.where(inside, 255, beyond))
