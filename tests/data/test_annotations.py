"""What is known of an image follows it; what is added to the tables is in a batch."""

import types

import numpy as np
import pytest
from PIL import Image

from beit_jax.data import augmentations, pipeline, sources
from beit_jax.data.annotations import ANNOTATIONS, Annotation, stored_fields
from beit_jax.data.augmentations import AUGMENTATIONS, Augmentation
from beit_jax.data.batches import dtypes, train_only
from beit_jax.data.frame import Frame
from beit_jax.data.frames import FRAMES
from beit_jax.data.settings import Augment
from beit_jax.data.sources import BadExample, Record
from beit_jax.data.views import Views
from tests.data import corpus

DEFAULT = {"name": "random_resized"}


def spec_of(**shapes):
    made = {"image": (32, 32, 3), **shapes}
    return {
        name: types.SimpleNamespace(shape=shape, dtype=np.dtype(dtypes()[name]))
        for name, shape in made.items()
    }


class Depths(sources.Source):
    """Eight images that are as bright as they are far away."""

    def __init__(self):
        self.info = sources.Info("depths", 8, (), 0)

    def read(self, index):
        depth = np.random.RandomState(index).randint(0, 256, (40, 50)).astype(np.uint8)
        return Record(depth[..., None].repeat(3, 2), more={"depth": depth})

    def describe(self, index):
        return f"depth {index}"


def depth(record, wanted):
    frame = wanted.frame(wanted.shapes["depth"])
    return {"depth": frame.labels(Image.fromarray(record.get("depth")), outside=0)}


@pytest.fixture
def with_depth(monkeypatch):
    row = Annotation({"depth": np.uint8}, ("depth",), "depth", depth)
    monkeypatch.setitem(ANNOTATIONS, "depth", row)
    monkeypatch.setitem(sources.SOURCES, "depths", Depths)


@pytest.fixture
def with_shade(monkeypatch):
    """Pixels that are darkened by a number, which the step is told."""
    row = Augmentation(
        numbers=lambda settings, shapes: int("shade" in shapes),
        pixels=lambda settings, u, view: view.point(lambda x: int(x * u[0])),
        arrays={"shade": np.float32},
        make=lambda settings, u, size: {"shade": np.float32(u[0])},
    )
    monkeypatch.setitem(AUGMENTATIONS, "shade", row)


def streams(frame, **shapes):
    config = {"batch_size": 4, "augment": {"interpolation": "area"}}
    config |= {name: {"name": "depths"} for name in ("source", "eval_source")}
    config |= {"frame": frame, "eval_frame": frame}
    for make in (pipeline.train_stream, pipeline.eval_stream):
        yield make(config, spec_of(**shapes), seed=0)


def test_an_annotation_that_is_added_is_in_a_batch(with_depth):
    """And follows the image: a view of the image's own size is its depth map."""
    frame = {"name": "pad", "pad": 0}
    for stream in streams(frame, depth=(32, 32)):
        batch = next(stream.batches())
        assert batch["depth"].dtype == np.uint8 and batch["depth"].any()
        np.testing.assert_array_equal(batch["depth"], batch["image"][..., 0])
    assert "depth" in stored_fields()


def test_an_augmentation_that_is_added_is_in_a_batch(with_depth, with_shade):
    train, evaluation = streams(DEFAULT, shade=())
    plain, _ = streams(DEFAULT)
    shaded, want = next(train.batches()), next(plain.batches())
    assert train.spec["shade"] == ((4,), np.float32)
    assert len(np.unique(shaded["shade"])) == 4
    darker = want["image"] * shaded["shade"][:, None, None, None]
    assert np.abs(shaded["image"] - darker).max() <= 1
    assert "shade" in train_only() and "shade" not in evaluation.spec


def test_every_array_of_the_tables_has_a_row_of_its_own():
    rows = (*ANNOTATIONS.values(), *AUGMENTATIONS.values())
    names = [name for row in rows for name in row.arrays]
    assert len(names) == len(set(names)) and not {"image", "mask"} & {*names}
    assert ANNOTATIONS.keys() <= {*names}


def test_nothing_is_drawn_for_what_is_off():
    shapes = {"image": (32, 32, 3)}
    assert augmentations.active(Augment(), shapes) == {}
    assert augmentations.active(Augment(jitter=0.1), shapes).keys() == {"jitter"}
    assert augmentations.active(Augment(), shapes | {"mix": (5,)}).keys() == {"mix"}


SHAPES = {"boxes": (3, 4), "classes": (3,), "valid": (3,), "masks": (3, 16, 16)}
LEFT, RIGHT = (np.mgrid[:40, :60][1] < 20) * 1, (np.mgrid[:40, :60][1] >= 40) * 1
OBJECTS = Record(
    np.zeros((40, 60, 3), np.uint8),
    boxes=np.array([[0, 0, 40, 20], [0, 40, 40, 60]], np.float32),
    classes=np.array([5, 6], np.int32),
    masks=np.stack([LEFT, RIGHT]).astype(np.uint8),
)


def seen(record, training=False, frame="whole", **settings):
    views = Views(Augment(), spec_of(**SHAPES), FRAMES[frame](**settings), training)
    u = {name: np.zeros(count) for name, count in views.numbers.items()}
    return views.make(record, views.open(record), u)


@pytest.mark.parametrize("training", [False, True])
def test_masks_and_boxes_are_of_the_same_objects(training):
    """In training, uniforms of 0 mirror the view."""
    made = seen(OBJECTS, training)
    np.testing.assert_array_equal(made["classes"], [5, 6, 0])
    np.testing.assert_array_equal(made["valid"], [True, True, False])
    assert made["masks"].dtype == np.uint8 and made["masks"].shape == (3, 16, 16)
    assert not made["masks"][2].any()
    for box, mask in zip(made["boxes"][:2] / 2, made["masks"], strict=False):
        columns = np.flatnonzero(mask.all(0))
        assert (mask == mask[:1]).all()
        assert abs(columns[0] - box[1]) < 1 and abs(columns[-1] + 1 - box[3]) < 1


def test_an_object_beside_the_view_leaves_its_place_to_the_next():
    made = seen(OBJECTS, frame="pad", pad=0)  # the first 32 of 60 columns
    np.testing.assert_array_equal(made["classes"], [5, 0, 0])
    made = seen(OBJECTS._replace(boxes=OBJECTS.boxes[::-1]), frame="pad", pad=0)
    np.testing.assert_array_equal(made["classes"], [6, 0, 0])


def test_masks_may_be_encoded_and_of_any_value():
    files = [corpus.encoded(Image.fromarray(m * 255), "PNG") for m in OBJECTS.masks]
    made, want = seen(OBJECTS._replace(masks=files)), seen(OBJECTS)
    np.testing.assert_array_equal(made["masks"], want["masks"])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"masks": None}, "no masks with boxes, and the task needs them"),
        ({"masks": OBJECTS.masks[:1]}, "1 masks of 2 boxes"),
        ({"masks": OBJECTS.masks[:, :, :9]}, r"\(2, 40, 9\) must be \(M, H, W\)"),
    ],
)
def test_masks_that_do_not_fit_are_refused(change, message):
    with pytest.raises(BadExample, match=message):
        seen(OBJECTS._replace(**change))


@pytest.mark.parametrize("field", ["image", "boxes", "classes", "label_map", "masks"])
def test_a_kept_evaluation_is_told_apart_by_all_that_is_stored(field):
    before = OBJECTS._replace(label_map=LEFT)
    after = before._replace(**{field: 1 - getattr(before, field)})
    assert pipeline.crc32_of(before) != pipeline.crc32_of(after)


def whole_map(record, room, classes=0):
    spec = spec_of(image=(*room, 3), label_map=room, frame=(11,))
    views = Views(Augment(), spec, FRAMES["native"](), False, classes)
    return views.make(record, views.open(record), views.middle)


def test_an_image_and_its_label_map_are_evaluated_as_large_as_they_are():
    pixels = np.random.RandomState(0).randint(0, 256, (40, 60, 3)).astype(np.uint8)
    made = whole_map(Record(pixels, label_map=pixels[..., 0]), (48, 64))
    np.testing.assert_array_equal(made["image"][:40, :60], pixels)
    np.testing.assert_array_equal(made["label_map"][:40, :60], pixels[..., 0])
    assert made["label_map"].dtype == np.uint8
    for name, beyond in (("image", 0), ("label_map", 255)):
        assert (made[name][40:] == beyond).all()
        assert (made[name][:, 60:] == beyond).all()
    assert Frame.of_numbers(made["frame"]).whole == (40, 60)


def test_a_label_map_that_its_room_cannot_hold_is_refused():
    record = Record(np.zeros((40, 60, 3), np.uint8), label_map=np.zeros((40, 60)))
    with pytest.raises(BadExample, match="is 40x60 .* for 48x56; raise task.inference"):
        whole_map(record, (48, 56))
