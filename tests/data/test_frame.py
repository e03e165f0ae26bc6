"""Frames: labels, boxes and masks stay with what an image shows, there and back."""

import numpy as np
import pytest
from PIL import Image

from beit_jax.data import frame as frame_lib
from beit_jax.data.frame import IGNORED_LABEL, NEAREST, Frame
from beit_jax.data.frames import FRAMES, Centre
from beit_jax.data.ops.geometry import FILTERS, Box

BILINEAR = Image.Resampling.BILINEAR
# Name of a frame -> settings under which it shows most of an image of 90x120.
SETTINGS = {
    "random_resized": {"min_scale": 0.6},
    "pad": {"pad": 30},
    "scaled": {"min_scale": 0.4, "max_scale": 1.4, "long": 120, "short": 90},
    "fit": {"align": "top_left"},
    "whole": {"crop_pct": 0.875},
}
OBJECT = (20, 30, 50, 90)  # top, left, bottom, right


def some_frames(name, size=(64, 64)):
    """Of an image of 90x120: a few, plain and mirrored."""
    make = FRAMES[name](**SETTINGS.get(name, {}))
    for seed in range(4):
        u = np.random.RandomState(seed).rand(make.numbers)
        for flip in (False, True):
            yield make(u, (90, 120), size)._replace(flip=flip)


def drawn_object():
    """An image that is red where its object is, its label map, box and mask."""
    mask = np.zeros((90, 120), np.uint8)
    mask[OBJECT[0] : OBJECT[2], OBJECT[1] : OBJECT[3]] = 1
    image = np.full((90, 120, 3), 60, np.uint8)
    image[mask == 1] = (255, 0, 0)
    labels = np.where(mask, 200, 3).astype(np.uint8)
    return Image.fromarray(image), Image.fromarray(labels), mask


def bounds(mask):
    rows, columns = np.nonzero(mask)
    return rows.min(), columns.min(), rows.max() + 1, columns.max() + 1


@pytest.mark.parametrize("name", FRAMES)
def test_image_labels_boxes_and_masks_stay_aligned(name):
    image, labels, mask = drawn_object()
    for frame in some_frames(name):
        red = np.asarray(frame.image(image, BILINEAR))[..., 0] > 157
        mapped, (cut,) = frame.labels(labels), frame.masks(mask[None])
        assert red.shape == mapped.shape == cut.shape == frame.size
        np.testing.assert_array_equal(mapped == 200, cut == 1)
        assert ((cut == 1) != red).mean() < 0.03
        (box,), (visible,) = frame.boxes(np.array([OBJECT], np.float32))
        assert visible and box.dtype == np.float32
        np.testing.assert_allclose(box, bounds(cut), atol=1.01)


@pytest.mark.parametrize("name", FRAMES)
def test_boxes_and_points_come_back_to_where_they_were(name):
    for frame in some_frames(name):
        top, left, height, width = frame.box
        inner = np.array([[top + 0.3 * height, left + 0.2 * width]] * 2)
        inner[1] += 0.4 * height, 0.5 * width
        inner = np.clip(inner, 0, frame.whole).reshape(1, 4).astype(np.float32)
        moved, _ = frame.boxes(inner)
        np.testing.assert_allclose(frame.back_boxes(moved), inner, atol=1e-4)
        corner = moved[0, [0, 3 if frame.flip else 1]]
        np.testing.assert_allclose(frame.back_points(corner), inner[0, :2], atol=1e-4)


@pytest.mark.parametrize("name", FRAMES)
def test_maps_come_back_to_where_they_were(name):
    _, labels, mask = drawn_object()
    for frame in some_frames(name, size=(96, 96)):
        seen = frame.back(np.ones(frame.size, bool))
        labels_again = frame.back(frame.labels(labels), outside=IGNORED_LABEL)
        assert seen.shape == labels_again.shape == (90, 120)
        assert labels_again.dtype == np.uint8
        assert (labels_again[~seen] == IGNORED_LABEL).all()
        assert (labels_again != np.asarray(labels))[seen].mean() < 0.05
        floats = frame.back(frame.masks(mask[None])[0].astype(np.float32))
        assert floats.dtype == np.float32
        assert np.abs(floats - mask)[seen].mean() < 0.05


def test_the_whole_image_seen_at_its_size_comes_back_exactly():
    values = np.random.RandomState(0).rand(7, 9, 2)
    for flip in (False, True):
        frame = Frame((7, 9), (7, 9), Box(0, 0, 7, 9), (7, 9), flip)
        view = values[:, ::-1] if flip else values
        np.testing.assert_allclose(frame.back(view), values)
        np.testing.assert_array_equal(frame.back(view > 0.5), values > 0.5)


def test_a_coarse_map_is_interpolated_between_the_centres_of_its_values():
    frame = Frame((4, 4), (4, 4), Box(0, 0, 4, 4), (4, 4))
    made = frame.back(np.array([[0.0], [1.0]]))
    np.testing.assert_allclose(made[:, 0], [0, 0.25, 0.75, 1])


def test_beyond_the_image_pixels_are_filled_and_labels_ignored():
    image, labels = Image.new("RGB", (4, 4), "white"), Image.new("L", (4, 4), 7)
    frame = Frame((4, 4), (4, 4), Box(-1, 2, 4, 4), (4, 4), fill=(9, 8, 7))
    inside = np.zeros((4, 4), bool)
    inside[1:, :2] = True
    shown = np.asarray(frame.image(image, BILINEAR))
    want = np.where(inside[..., None], 255, (9, 8, 7))
    np.testing.assert_array_equal(shown, want)
    want = np.where(inside, 7, IGNORED_LABEL)
    np.testing.assert_array_equal(frame.labels(labels), want)
    (mask,) = frame.masks(np.ones((1, 4, 4), np.uint8))
    np.testing.assert_array_equal(mask, inside)
    assert frame.masks(np.zeros((0, 4, 4), np.uint8)).shape == (0, 4, 4)


def test_objects_are_clipped_and_those_outside_are_invisible():
    given = np.array([[0.0, 0, 10, 10], [0, 30, 10, 40], [5, 15, 12, 25]])
    moved, visible = Frame((10, 40), (10, 40), Box(0, 0, 10, 20), (10, 20)).boxes(given)
    np.testing.assert_array_equal(visible, [True, False, True])
    np.testing.assert_array_equal(moved[2], [5, 15, 10, 20])


def noise(*shape):
    return np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("shape", [(37, 53), (53, 37), (300, 301), (24, 24), (20, 90)])
@pytest.mark.parametrize("pct", [1.0, 224 / 256, 0.9])
@pytest.mark.parametrize("name", FILTERS)
def test_centre_is_torchvisions_resize_and_centre_crop(shape, pct, name):
    image, short = Image.fromarray(noise(*shape, 3)), int(24 / pct)
    long = int(short * max(shape) / min(shape))
    resized = (short, long) if shape[0] <= shape[1] else (long, short)
    top, left = (round((side - 24) / 2) for side in resized)
    whole = np.asarray(image.resize(resized[::-1], FILTERS[name]))
    want = whole[top : top + 24, left : left + 24]
    ours = Centre(pct)(None, shape, (24, 24)).image(image, FILTERS[name])
    np.testing.assert_array_equal(ours, want)


def test_a_thin_image_is_cut_before_it_would_fill_the_memory(monkeypatch):
    image = Image.fromarray(noise(4, 400, 3))
    frame = Centre()(None, (4, 400), (32, 32))
    exact = frame.image(image, FILTERS["bicubic"])
    monkeypatch.setattr(frame_lib, "_HUGE", 1000)
    thin = frame.image(image, FILTERS["bicubic"])
    difference = np.abs(np.asarray(exact, int) - np.asarray(thin, int))
    assert difference.max() <= 1


def test_the_box_of_the_centre_is_where_it_looks():
    """Of an image whose red is the row, and whose green is the column."""
    rows, columns = np.mgrid[:50, :80]
    image = Image.fromarray(np.stack([rows, columns, rows], -1).astype(np.uint8))
    frame = Centre(0.8)(None, (50, 80), (20, 20))
    view, box = np.asarray(frame.image(image, NEAREST)), frame.box
    assert abs(view[0, 0, 0] - box.top) <= 1.5 and abs(view[0, 0, 1] - box.left) <= 1.5
    assert abs(view[-1, -1, 0] - (box.top + box.height)) <= 1.5
