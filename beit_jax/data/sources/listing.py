"""Images named by a list, one a line, with labels, label maps or boxes."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from beit_jax.data.sources import list_rows
from beit_jax.data.sources.base import Info, Record, Source, check_unique, digest
from beit_jax.data.sources.classes import infer_names, numbering
from beit_jax.data.sources.files import open_files
from beit_jax.data.sources.label_maps import Meaning
from beit_jax.data.sources.list_rows import Form, Problems, Row
from beit_jax.data.sources.subset import Subset
from beit_jax.ranges import Count, SubsetSeed

_OLDEST = 5  # fields that a row has always had, without its line


class Listing(Source):
    """The images of a .csv file with a header, or of a .jsonl file, in its order.

    Columns or keys:
      image: path of the image below `root`.
      label: class name or number. A text that is a class name is that class. Several
        with the `separator` between them, or in JSON as a list, are labels of their own
        kind, of which an image may have none.
      label_map: path below `root` of an image that holds a class in each pixel.
      boxes: in JSON, [[top, left, bottom, right], ...] in pixels.
      classes: in JSON, the boxes' class names or numbers.
      masks: in JSON, for each box the path below `root` of an image of one channel,
        which is not 0 where the box's object is.
    All but image may be absent, but then from every line. Others are ignored.

    Without `class_names`, the classes are the names that occur, sorted, or "0" to the
    largest number that occurs. A label map's classes are not looked for.
    """

    def __init__(
        self,
        path: str,
        root: str = "",
        class_names: tuple = (),
        labels_per_class: Count = 0,
        subset_seed: SubsetSeed = 0,
        limit: Count = 0,
        part: str = "",
        separator: str = "",
        targets: tuple = (),
        labels: Mapping = (),
    ):
        """Reads the list and checks all that it says.

        Args:
          path: the list.
          root: a folder or an archive with the images; empty: the list's own folder.
          class_names: in the order of the labels. Give them so that lists for training
            and for testing agree.
          labels_per_class: keep this many random images of each class; 0 = all.
          subset_seed: chooses them, and those of `limit`.
          limit: keep this many random images in all; 0 = all.
          part: "test" is every tenth line, "train" all others: for data without splits
            of its own. Subsets are drawn within the part.
          separator: between the labels of an image, "|" say; empty: there is one.
          targets: columns with a number each, for regression.
          labels: what the pixels of label maps mean, if not the numbers of classes:
            `reduce_zero_label`, `palette`, `ids`, `ignore` of label_maps.Meaning.

        Raises:
          ValueError: the list cannot be used; names its first bad lines. A folder's
            files are not looked for here: a missing one shows when it is read.
        """
        self._root = os.path.expanduser(root or os.path.dirname(path) or ".")
        self.targets = tuple(map(str, targets))
        rows = list_rows.read(path, self._root, Form(separator, self.targets))
        problems = Problems(path)
        rows, class_names = _number_classes(
            rows, tuple(map(str, class_names)), problems
        )
        needed = {name for row in rows for name in _files_of(row)}
        self._files = open_files(self._root, needed.__contains__)
        _look_up(rows, self._files.missing(needed), self._root, problems)
        problems.raise_any()
        labelled = rows[0].label is not None
        numbers = np.array([row.label or 0 for row in rows], np.int32)
        chosen = Subset(part, limit, labels_per_class, subset_seed).keep(
            len(rows), (lambda mine: numbers[mine]) if labelled else None, class_names
        )
        self._meaning = Meaning.from_config(labels, class_names)
        self._rows = [rows[i] for i in chosen]
        self.info = Info(
            os.path.basename(path),
            len(chosen),
            class_names,
            digest([*map(_told, self._rows), *self._meaning.told], numbers[chosen]),
        )

    def read(self, index: int) -> Record:
        row = self._rows[index]
        label_map = None
        if row.label_map:
            label_map = self._meaning.of(self._files.read(row.label_map))
        return Record(
            self._files.read(row.image),
            row.label,
            label_map,
            _array(row.boxes, np.float32, (-1, 4)),
            _array(row.classes, np.int32, (-1,)),
            None if row.masks is None else list(map(self._files.read, row.masks)),
            _more(row),
        )

    def label_counts(self) -> np.ndarray:
        given = [label for row in self._rows for label in _own_labels(row)]
        return np.bincount(given, minlength=len(self.info.class_names))

    def describe(self, index: int) -> str:
        return f"{self._root}/{self._rows[index].image}"


def _told(row: Row) -> str:
    """What a row says, without fields as before there were any: digests are kept."""
    told = list(row[1:])
    while told[-1] is None and len(told) > _OLDEST:
        told.pop()
    return repr(tuple(told))


def _more(row: Row) -> dict[str, np.ndarray]:
    more = {
        "labels": _array(row.labels, np.int32, (-1,)),
        "numbers": _array(row.numbers, np.float32, (-1,)),
    }
    return {name: values for name, values in more.items() if values is not None}


def _array(values: list | None, dtype: type, shape: tuple) -> np.ndarray | None:
    return None if values is None else np.array(values, dtype).reshape(shape)


def _files_of(row: Row) -> Iterable[str]:
    label_map = (row.label_map,) if row.label_map else ()
    return (row.image, *label_map, *(row.masks or ()))


def _look_up(
    rows: Sequence[Row], missing: Sequence[str], root: str, problems: Problems
) -> None:
    absent = set(missing)
    for row in rows if absent else ():
        for name in absent.intersection(_files_of(row)):
            problems.add(row.line, f"there is no {name!r} in {root}")


def _number_classes(
    rows: Sequence[Row], class_names: tuple[str, ...], problems: Problems
) -> tuple[list[Row], tuple[str, ...]]:
    """Rows with numbers for labels and classes, and the names of the classes."""
    given = [label for row in rows for label in _labels_of(row)]
    if not class_names:
        try:
            class_names = infer_names(given)
        except ValueError as error:
            raise ValueError(f"{problems.path} cannot be used: {error}") from error
    check_unique(class_names, {label for label in given if isinstance(label, str)})
    number = numbering(class_names)
    numbered = []
    for row in rows:
        try:
            numbered.append(_with_numbers(row, number))
        except ValueError as error:
            problems.add(row.line, str(error))
    return numbered, class_names


def _with_numbers(row: Row, number: Callable[[int | str], int]) -> Row:
    if row.label is not None:
        row = row._replace(label=number(row.label))
    if row.classes is not None:
        row = row._replace(classes=[number(label) for label in row.classes])
    if row.labels is not None:
        row = row._replace(labels=sorted({number(label) for label in row.labels}))
    return row


def _labels_of(row: Row) -> list[int | str]:
    return _own_labels(row) + (row.classes or [])


def _own_labels(row: Row) -> list[int | str]:
    """Those of the image itself."""
    return (row.labels or []) if row.label is None else [row.label]
