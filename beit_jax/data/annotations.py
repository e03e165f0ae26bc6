"""What is known of an image, and how it follows the image into a view.

One row a kind: the arrays that it makes, the fields of a Record that it needs, and the
function that checks and moves them. What a batch may hold, what is shown as missing and
what a kept evaluation is told apart by follow from the rows.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image

from beit_jax.data.frame import IGNORED_LABEL, Frame
from beit_jax.data.ops import decode, geometry
from beit_jax.data.ops.geometry import Size
from beit_jax.data.sources import BadExample, Record

Arrays = dict[str, np.ndarray]


class Wanted(NamedTuple):
    """What a task asks of the annotations of one view.

    Attributes:
      frame: gives the view's frame at a size.
      size: of `image`, in whose pixels boxes are.
      shapes: name -> shape of every array of the example.
      classes: C; 0: labels are not looked at.
    """

    frame: Callable[[Size], Frame]
    size: Size
    shapes: Mapping[str, tuple[int, ...]]
    classes: int


class Annotation(NamedTuple):
    """A row of ANNOTATIONS.

    Attributes:
      arrays: name -> dtype. One of the row's name is what a task asks for; the others
        come along with it.
      fields: of a Record. An example without one of them cannot be used.
      words: what such an example does not have.
      make: a record that has the fields -> the arrays, not batched.
      follows: whether it follows the image's pixels into the view.
    """

    arrays: Mapping[str, type]
    fields: tuple[str, ...]
    words: str
    make: Callable[[Record, Wanted], Arrays]
    follows: bool = True


def make(record: Record, wanted: Wanted) -> Arrays:
    """All annotations that are wanted, in the geometry of the view.

    Raises:
      BadExample: one is missing, or cannot be used.
    """
    made = {}
    for name in asked(wanted.shapes):
        row = ANNOTATIONS[name]
        if any(record.get(field) is None for field in row.fields):
            raise BadExample(f"it has no {row.words}")
        made |= row.make(record, wanted)
    return made


def asked(names: Mapping[str, object]) -> list[str]:
    """The rows that an example spec, or its shapes, asks for."""
    return [name for name in ANNOTATIONS if name in names]


def stored_fields() -> list[str]:
    """Every field of a Record that makes a difference to a batch."""
    rows = ANNOTATIONS.values()
    return sorted({"image", *(field for row in rows for field in row.fields)})


def _label(record: Record, wanted: Wanted) -> Arrays:
    if wanted.classes and not 0 <= record.label < wanted.classes:
        raise BadExample(
            f"its label is {record.label}; labels must be in 0 .. {wanted.classes - 1}"
        )
    return {"label": np.int32(record.label)}


def _labels(record: Record, wanted: Wanted) -> Arrays:
    """1 for each label that an image has, else 0; it may have the one of a class."""
    several = record.get("labels")
    if several is None:
        if record.label is None:
            raise BadExample("it has no labels, and the task needs them")
        several = _label(record, wanted)["label"]
    made = np.zeros(wanted.shapes["labels"], np.float32)
    made[several] = 1
    return {"labels": made}


def _numbers(record: Record, wanted: Wanted) -> Arrays:
    return {"numbers": record.get("numbers")}


def _frame(record: Record, wanted: Wanted) -> Arrays:
    return {"frame": wanted.frame(wanted.size).numbers}


def _labels_2d(record: Record, wanted: Wanted) -> Arrays:
    frame = wanted.frame(wanted.shapes["labels_2d"][:2])
    labels = _map_of(record, wanted.classes, frame.whole)
    return {"labels_2d": frame.labels(labels).astype(np.int32)}


def _label_map(record: Record, wanted: Wanted) -> Arrays:
    """The map as large as it is, at the top left of its room."""
    room = wanted.shapes["label_map"]
    height, width = whole = wanted.frame(wanted.size).whole
    labels = _map_of(record, wanted.classes, whole)
    if height > room[0] or width > room[1]:
        raise BadExample(
            f"its label map is {height}x{width} (height x width), and there is room "
            f"for {room[0]}x{room[1]}; raise task.inference.room"
        )
    made = np.full(room, IGNORED_LABEL, np.uint8)
    made[:height, :width] = labels
    return {"label_map": made}


def _map_of(record: Record, classes: int, whole: Size) -> Image.Image:
    """The whole label map, of mode "L"."""
    labels = decode.to_labels(record.label_map, whole[::-1])
    counts = np.array(labels.histogram())
    counts[IGNORED_LABEL] = 0
    if classes and counts[classes:].any():
        label = classes + int(np.flatnonzero(counts[classes:])[0])
        raise BadExample(
            f"its label map has {counts[label]} pixels of label {label}; labels must "
            f"be in 0 .. {classes - 1}, or {IGNORED_LABEL} to be ignored: the source's "
            "labels.ids or labels.ignore tell what others mean"
        )
    return labels


def _boxes(record: Record, wanted: Wanted) -> Arrays:
    boxes, visible = _visible(record, wanted)
    places, count = wanted.shapes["boxes"][0], int(visible.sum())
    made = {
        "boxes": np.zeros((places, 4), np.float32),
        "classes": np.zeros(places, np.int32),
        "valid": np.arange(places) < count,
    }
    made["boxes"][:count] = boxes[visible]
    made["classes"][:count] = record.classes[visible]
    return made


def _masks(record: Record, wanted: Wanted) -> Arrays:
    """Of the objects that `_boxes` shows, in their places."""
    _, visible = _visible(record, wanted)
    places, *size = wanted.shapes["masks"]
    frame = wanted.frame(tuple(size))
    masks = decode.to_masks(record.masks, frame.whole[::-1])
    if len(masks) != len(visible):
        raise BadExample(f"it has {len(masks)} masks of {len(visible)} boxes")
    made = np.zeros((places, *size), np.uint8)
    made[: visible.sum()] = frame.masks(masks[visible])
    return {"masks": made}


def _visible(record: Record, wanted: Wanted) -> tuple[np.ndarray, np.ndarray]:
    """The objects' boxes in the view, and which of them can be seen."""
    frame = wanted.frame(wanted.size)
    geometry.check_boxes(record.boxes, frame.whole[::-1])
    boxes, visible = frame.boxes(record.boxes)
    rooms = (wanted.shapes[n][0] for n in ("boxes", "masks") if n in wanted.shapes)
    places, count = min(rooms), int(visible.sum())
    if count > places:
        raise BadExample(f"it has {count} objects; the task has room for {places}")
    return boxes, visible


# Of masks and boxes, a place holds the same object.
ANNOTATIONS = {
    "label": Annotation(
        {"label": np.int32},
        ("label",),
        "label, and the task needs one",
        _label,
        follows=False,
    ),
    "labels": Annotation({"labels": np.float32}, (), "", _labels, follows=False),
    "numbers": Annotation(
        {"numbers": np.float32},
        ("numbers",),
        "numbers, and the task needs them",
        _numbers,
        follows=False,
    ),
    "labels_2d": Annotation(
        {"labels_2d": np.int32},
        ("label_map",),
        "label map, and the task needs one",
        _labels_2d,
    ),
    "label_map": Annotation(
        {"label_map": np.uint8},
        ("label_map",),
        "label map, and the task needs one",
        _label_map,
    ),
    "frame": Annotation({"frame": np.int32}, (), "", _frame, follows=False),
    "boxes": Annotation(
        {"boxes": np.float32, "classes": np.int32, "valid": np.bool_},
        ("boxes", "classes"),
        "boxes with classes, and the task needs them",
        _boxes,
    ),
    "masks": Annotation(
        {"masks": np.uint8},
        ("boxes", "masks"),
        "masks with boxes, and the task needs them",
        _masks,
    ),
}
