"""The named frames: laws and pixels of those whose transforms they follow."""

import json

import numpy as np
import pytest
from PIL import Image, ImageOps

from beit_jax import lookup
from beit_jax.data.frame import Frame
from beit_jax.data.frames import (
    FRAMES,
    Fit,
    RandomResized,
    Scaled,
    Square,
    Whole,
    complete,
)
from beit_jax.data.ops import geometry
from beit_jax.data.ops.geometry import FILTERS, Box
from tests.shared import shared_path

SHAPES = [(37, 53), (53, 37), (300, 301), (24, 24), (5, 90), (200, 1)]


def noise(*shape):
    pixels = np.random.RandomState(0).randint(0, 256, (*shape, 3)).astype(np.uint8)
    return Image.fromarray(pixels)


def recorded(name):
    return np.load(shared_path(f"oracles/{name}/arrays.npz"))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_whole_squashes_the_image_to_the_size_of_the_view(shape, name):
    image, resample = noise(*shape), FILTERS[name]
    view = Whole()(None, shape, (24, 32)).image(image, resample)
    np.testing.assert_array_equal(view, image.resize((32, 24), resample))
    view = Whole(0.875)(None, shape, (28, 28)).image(image, resample)
    want = image.resize((32, 32), resample).crop((2, 2, 30, 30))
    np.testing.assert_array_equal(view, want)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(24, 24), (24, 40), (41, 25)])
@pytest.mark.parametrize("fill", [(0, 0, 0), (9, 8, 7)])
def test_fit_is_pillows_pad(shape, size, fill):
    image, resample = noise(*shape), FILTERS["bicubic"]
    if shape == (200, 1):  # where Pillow's would have no width at all
        size = (200, 24)
    for align, centring in (("centre", (0.5, 0.5)), ("top_left", (0, 0))):
        view = Fit(align, fill)(None, shape, size).image(image, resample)
        want = ImageOps.pad(image, size[::-1], resample, fill, centring)
        np.testing.assert_array_equal(view, want)


def test_an_image_that_is_nearly_a_line_still_fits():
    frame = Fit()(None, (30_000, 1), (32, 32))
    assert frame.resized == (32, 1)
    assert frame.image(Image.new("RGB", (1, 300)), FILTERS["bilinear"]).size == (32, 32)


@pytest.mark.parametrize("shape", [(40, 60), (60, 50), (24, 97), (300, 1)])
def test_native_shrinks_only_what_does_not_fit(shape):
    frame = FRAMES["native"]()(None, shape, (40, 60))
    if shape[0] > 40 or shape[1] > 60:
        assert frame.resized == Fit()(None, shape, (40, 60)).resized
    else:
        assert frame.resized == shape
    assert frame.whole == shape and frame.cut == (0, 0, 40, 60)
    assert frame.image(noise(*shape), FILTERS["bilinear"]).size == (60, 40)


def test_random_resized_and_square_take_their_laws_boxes():
    u = np.random.RandomState(0).rand(40)
    frame = RandomResized(min_scale=0.3)(u, (90, 120), (32, 32))
    box = geometry.random_box(u, 90, 120, (0.3, 1.0))
    assert frame == Frame((90, 120), (90, 120), box, (32, 32))
    frame = Square()(u, (90, 120), (32, 32))
    assert frame.cut == frame.box == geometry.square_box(u, 90, 120, 32)


def test_scaled_keeps_the_shape_and_sees_every_part():
    """As a plain formula; what is smaller than the view lies at its top left."""
    make, size = Scaled(min_scale=0.5, max_scale=2.0, long=200, short=50), (64, 64)
    random, zooms, starts = np.random.RandomState(0), [], []
    for _ in range(2000):
        whole, cut = (
            (90, 120),
            (frame := make(u := random.rand(3), (90, 120), size)).cut,
        )
        zoom = (0.5 + 1.5 * u[0]) * min(200 / 120, 50 / 90)
        assert frame.resized == tuple(int(side * zoom + 0.5) for side in whole)
        assert cut[2:] == size
        spare = np.maximum(np.array(frame.resized) - size, 0)
        assert (np.array(cut[:2]) >= 0).all() and (cut[:2] <= spare).all()
        zooms.append(zoom)
        starts.append(np.array(cut[:2]) / np.maximum(spare, 1))
    assert 0.27 < min(zooms) < 0.29 and 1.1 < max(zooms) < 1.12
    assert np.min(starts) == 0 and np.max(starts) == 1


@pytest.mark.parametrize("case", range(3))
def test_scaled_resizes_as_mmsegmentation_does(case):
    """Recorded sizes; pixels differ: OpenCV neither filters nor centres as Pillow."""
    kept = recorded("seg_transforms")
    long, short = kept[f"resize/{case}/scale"].tolist()
    make = Scaled(min_scale=1.0, max_scale=1.0, long=long, short=short)
    frame = make(np.zeros(3), kept["in/image"].shape[:2], (16, 16))
    assert frame.resized == kept[f"resize/{case}/image"].shape[:2]


@pytest.mark.parametrize("case", range(4))
def test_scaled_crops_as_mmsegmentation_does(case):
    """Where that crop is smaller than asked for, ours is padded."""
    kept = recorded("seg_transforms")
    size = tuple(kept[f"crop/{case}/crop_size"].tolist())
    top, left = kept[f"crop/{case}/chosen"].tolist()
    whole = kept["crop/in_image"].shape[:2]
    frame = Frame(whole, whole, Box(top, left, *size), size)
    image = frame.image(Image.fromarray(kept["crop/in_image"]), FILTERS["bilinear"])
    want = kept[f"crop/{case}/image"]
    height, width = want.shape[:2]
    np.testing.assert_array_equal(np.asarray(image)[:height, :width], want)
    labels = kept["crop/in_label"] if case < 3 else np.ones(whole, np.uint8)
    labels = frame.labels(Image.fromarray(labels))
    np.testing.assert_array_equal(labels[:height, :width], kept[f"crop/{case}/label"])
    assert (labels[height:] == 255).all() and (labels[:, width:] == 255).all()


@pytest.mark.parametrize("case", range(4))
def test_parts_of_one_class_are_drawn_again_as_in_mmsegmentation(case):
    """Its recorded draws, made uniforms of ours; case 3 has one class only."""
    kept = recorded("seg_transforms")
    whole = kept["crop/in_label"].shape
    size = tuple(kept[f"crop/{case}/crop_size"].tolist())
    make = Scaled(1.0, 1.0, long=max(whole), short=min(whole), cat_max_ratio=0.75)
    spare = np.maximum(np.array(whole) - size, 0)
    draws = (kept[f"crop/{case}/offsets"] + 0.5) / (spare + 1)
    u = np.concatenate([[0.5], draws.ravel()])
    assert make.by_labels and make.numbers == len(u) == 23
    labels = kept["crop/in_label"] if case < 3 else np.ones(whole, np.uint8)
    first = make(u, whole, size)
    assert first.cut[:2] == tuple(kept[f"crop/{case}/offsets"][0])
    cut = make.choose(u, first, labels).cut
    assert cut == Box(*kept[f"crop/{case}/chosen"], *size)


def test_ignored_labels_are_no_class():
    make, whole = Scaled(1.0, 1.0, 64, 64, cat_max_ratio=0.75), (64, 64)
    labels = np.full(whole, 255, np.uint8)
    labels[:, :32] = 1  # one class and what is ignored
    u = np.linspace(0, 0.99, 23)
    frame = make(u, whole, (32, 32))
    assert make.choose(u, frame, labels).cut[:2] == (int(33 * u[21]), int(33 * u[22]))
    labels[:, 32:] = 2
    assert make.choose(u, frame, labels).cut[1] > 8
    assert not Scaled().by_labels and Scaled().numbers == 3


@pytest.mark.parametrize("case", range(5))
def test_scaled_is_large_scale_jitter(case):
    """Of detectron2, which mirrors first: its offset is from the other side."""
    kept = recorded("det_lsj")
    flip, scale, _ = kept[f"{case}/draws"]
    whole, side = kept["in/image"].shape[:2], 64
    make = Scaled(min_scale=scale, max_scale=scale)
    frame = make(np.zeros(3), whole, (side, side))
    assert frame.resized == tuple(kept[f"{case}/resized_hw"])
    top, left = kept[f"{case}/offset"].tolist()
    left = frame.resized[1] - side - left if flip else left
    frame = frame._replace(cut=Box(top, left, side, side), flip=bool(flip))
    want = kept[f"{case}/image"].astype(int)
    view = np.asarray(
        frame.image(Image.fromarray(kept["in/image"]), FILTERS["bilinear"])
    )
    height, width = want.shape[:2]
    assert np.abs(view[:height, :width] - want).max() <= 1
    assert not view[height:].any() and not view[:, width:].any()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "zoomed"}, "no 'zoomed' in data.frame; it has centre, fit"),
        ({"name": "random_resized", "min_scal": 0.5}, "did you mean 'min_scale'"),
        (
            {"name": "random_resized", "min_scale": 0.9, "max_scale": 0.5},
            "min_scale <= ",
        ),
        (
            {"name": "random_resized", "min_ratio": 2.0},
            "0 < min_ratio <= max_ratio, not",
        ),
        (
            {"name": "centre", "crop_pct": 1.5},
            "'centre': crop_pct=1.5 must be above 0 and at most 1",
        ),
        (
            {"name": "whole", "crop_pct": 0.0},
            "'whole': crop_pct=0.0 must be above 0 and at most 1",
        ),
        ({"name": "pad"}, "'pad' needs a setting 'pad'"),
        ({"name": "pad", "pad": -1}, "pad=-1 must be at least 0"),
        ({"name": "square", "zoom": (1.5, 1.2)}, "a zoom of 1 <= low <= high"),
        ({"name": "scaled", "min_scale": 3.0}, "0 < min_scale <= max_scale, not 3.0"),
        ({"name": "scaled", "long": -1}, "long=-1 must be at least 0"),
        ({"name": "fit", "align": "left"}, "align of centre or top_left, not 'left'"),
        ({"name": "fit", "fill": (0, 0)}, "a fill of three levels"),
    ],
)
def test_settings_that_do_not_fit_are_named(section, message):
    with pytest.raises(ValueError, match=message):
        lookup.build(FRAMES, section, "data.frame")


@pytest.mark.parametrize("name", [name for name in FRAMES if name != "pad"])
def test_a_completed_section_is_plain_and_builds_the_same(name):
    section = complete({"name": name})
    assert json.loads(json.dumps(section)) == section
    made = lookup.build(FRAMES, section, "data.frame")
    u, sizes = np.full(made.numbers, 0.3), ((60, 80), (32, 32))
    assert made(u, *sizes) == FRAMES[name]()(u, *sizes)
