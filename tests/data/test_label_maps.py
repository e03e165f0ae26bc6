"""What the pixels of label maps mean, and what is said of maps that do not fit."""

import numpy as np
import pytest
from PIL import Image

from beit_jax.data import pipeline
from beit_jax.data.ops import decode
from beit_jax.data.sources import BadExample, Record
from beit_jax.data.sources.label_maps import LabelMap, Meaning
from tests.data import corpus
from tests.data.test_annotations import whole_map
from tests.shared import shared_path

RED, BLUE = (255, 0, 0), (0, 0, 255)


def classes(pixels, **labels):
    """By way of a PNG."""
    pixels = np.array(pixels)
    kind = np.uint16 if pixels.max() > 255 else np.uint8
    data = corpus.encoded(Image.fromarray(pixels.astype(kind)), "PNG")
    labels = Meaning.from_config(labels).of(data)
    return np.asarray(decode.to_labels(labels, pixels.shape[1::-1])).tolist()


def test_zero_is_reduced_as_mmsegmentation_does():
    kept = np.load(shared_path("oracles/seg_transforms/arrays.npz"))
    made = classes(kept["rzl/in"][None], reduce_zero_label=True)
    assert made == [kept["rzl/out"].tolist()]


def test_numbers_colours_and_ignored_ones_become_classes():
    assert classes([[0, 3, 255]]) == [[0, 3, 255]]
    assert classes([[0, 3, 255]], ignore=[3]) == [[0, 255, 255]]
    assert classes([[7, 8, 9, 33]], ids=[7, [33, 9]]) == [[0, 255, 1, 1]]
    assert classes([[7, 8, 3000]], ids=[7, 3000]) == [[0, 255, 1]]
    colours = {"palette": [RED, BLUE], "ignore": [(0, 0, 0)]}
    assert classes([[BLUE, RED, (0, 0, 0)]], **colours) == [[1, 0, 255]]


def test_a_palette_image_can_mean_its_colours():
    image = Image.fromarray(np.array([[4, 2]], np.uint8), "P")
    image.putpalette([0, 0, 0, 0, 0, 0, *RED, 0, 0, 0, *BLUE])
    data = corpus.encoded(image, "PNG")
    for labels, want in (({}, [[4, 2]]), ({"palette": [RED, BLUE]}, [[1, 0]])):
        made = decode.to_labels(Meaning.from_config(labels).of(data), (2, 1))
        assert np.asarray(made).tolist() == want


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        ([[RED, BLUE]], {}, "mode RGB; .* 8 bits; for colours .* labels.palette"),
        ([[0, 300]], {}, "mode I;16; .* 8 bits; for numbers of 16 .* labels.ids"),
        ([[0, 1]], {"palette": [RED]}, "mode L; its colours are in labels.palette"),
        ([[RED, BLUE, BLUE]], {"palette": [RED]}, r"2 pixels .*\(0, 0, 255\) say"),
    ],
)
def test_a_map_of_another_kind_is_refused(pixels, labels, message):
    with pytest.raises(BadExample, match=message):
        classes(pixels, **labels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"ids": [1], "palette": [RED]}, "palette and ids are set"),
        ({"ids": [1, 1]}, "twice"),
        ({"palette": [RED], "ignore": [RED]}, "twice"),
        ({"ids": [70000]}, r"\(70000,\) must be numbers in 0 .. 65535"),
        ({"palette": [(1, 2)]}, r"\(1, 2\) must be a colour"),
        ({"ignored": [1]}, "no setting 'ignored'; did you mean 'ignore'"),
        ({"ids": [1, 2, 3]}, "what 3 classes are, and there are 2 class_names"),
    ],
)
def test_settings_that_do_not_fit_are_named(labels, message):
    with pytest.raises(ValueError, match=message):
        Meaning.from_config(labels, ("cat", "dog"))


def test_a_label_that_is_no_class_is_refused():
    labels = np.array([[0, 1, 255], [2, 2, 0]], np.uint8)
    record = Record(np.zeros((2, 3, 3), np.uint8), label_map=labels)
    assert whole_map(record, (2, 3), classes=3)["label_map"].tolist() == labels.tolist()
    with pytest.raises(BadExample, match=r"2 pixels of label 2; .* in 0 .. 1, or 255"):
        whole_map(record, (2, 3), classes=2)


def test_a_kept_evaluation_is_told_apart_by_what_maps_mean():
    data = np.zeros((2, 2), np.uint8)
    records = [
        Record(b"image", label_map=map_)
        for map_ in (data, LabelMap(data, Meaning(ids=(0,))), LabelMap(data, Meaning()))
    ]
    one, other, same = map(pipeline.crc32_of, records)
    assert one != other and other != same
