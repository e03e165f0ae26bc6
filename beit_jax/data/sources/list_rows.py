"""Reads the lines of a .csv or .jsonl list and checks what each one says."""

import csv
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from beit_jax.data.sources.files import on_disk
from beit_jax.data.sources.paths import inside

_SHOWN = 5
_EXAMPLE = "[[top, left, bottom, right], ...] in pixels"


class Row(NamedTuple):
    """A line of a list; what is absent is None, and paths are relative to the root."""

    line: int
    image: str
    label: int | str | None = None
    label_map: str | None = None
    boxes: list[list[float]] | None = None
    classes: list[int | str] | None = None
    masks: list[str] | None = None
    labels: list[int | str] | None = None
    numbers: list[float] | None = None


class Form(NamedTuple):
    """How a list says what an image has.

    Attributes:
      separator: between the labels of an image, of which there may be none; "": an
        image has one label, or in JSON a list of them.
      targets: columns that hold numbers.
    """

    separator: str = ""
    targets: Sequence[str] = ()


ONE_LABEL = Form()


class Problems:
    """Collects what is wrong with a list, to say the first few and how many."""

    def __init__(self, path: str):
        self.path = path
        self._count = 0
        self._first: list[str] = []

    def add(self, line: int, problem: str) -> None:
        self._count += 1
        if len(self._first) < _SHOWN:
            self._first.append(f"line {line}: {problem}")

    def raise_any(self) -> None:
        if not self._count:
            return
        more = f"; {self._count} problems in all" * (self._count > _SHOWN)
        raise ValueError(f"{self.path} cannot be used: {'; '.join(self._first)}{more}")


def read(path: str, root: str, form: Form = ONE_LABEL) -> list[Row]:
    """All rows of the list.

    Args:
      path: of the list.
      root: of the images; paths in the list must lie below it.
      form: how lines say what an image has.

    Raises:
      ValueError: no such list, not a list, or lines that cannot be used.
    """
    kinds = {".csv": _csv_lines, ".jsonl": _jsonl_lines}
    lines = kinds.get(os.path.splitext(path)[1].lower())
    file = on_disk(path) if lines else None
    if file is None or not file.is_file():
        raise ValueError(f"no list ({' or '.join(kinds)}) at path={path!r}")
    problems, rows = Problems(path), []
    try:
        with open(file, encoding="utf-8-sig", newline="") as text:
            for number, fields in lines(text, problems):
                try:
                    rows.append(_row(number, fields, root, form))
                except ValueError as error:
                    problems.add(number, str(error))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no list in UTF-8: {error}") from error
    problems.raise_any()
    if not rows:
        raise ValueError(f"{path} names no images")
    _check_complete(rows, problems)
    problems.raise_any()
    return rows


def _csv_lines(
    text: Iterable[str], problems: Problems
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.reader(text)
    header = [name.strip() for name in next(reader, [])]
    if "image" not in header:
        problems.add(1, f"no column 'image'; the header has {', '.join(header)}")
        return
    for name in ("boxes", "classes", "masks"):
        if name in header:
            problems.add(1, f"a .csv cannot hold {name}; make it a .jsonl")
            return
    for values in reader:
        if not values:
            continue
        if len(values) != len(header):
            problems.add(
                reader.line_num,
                f"{len(values)} values for the {len(header)} columns of the header",
            )
            continue
        fields = zip(header, values, strict=True)
        yield reader.line_num, {name: value.strip() or None for name, value in fields}


def _jsonl_lines(
    text: Iterable[str], problems: Problems
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except ValueError as error:
            problems.add(number, f"no JSON: {error}")
            continue
        if isinstance(fields, dict):
            yield number, fields
        else:
            problems.add(number, f'{fields!r} is no object such as {{"image": ...}}')


def _row(line: int, fields: Mapping[str, Any], root: str, form: Form) -> Row:
    if fields.get("image") is None:
        raise ValueError("no image")
    boxes = _boxes(fields.get("boxes"))
    labels = _labels(fields, form.separator)
    return Row(
        line,
        _path("image", fields["image"], root),
        _label(fields.get("label")) if labels is None else None,
        _path("label_map", fields.get("label_map"), root),
        boxes,
        _box_classes(fields.get("classes"), boxes),
        _masks(fields.get("masks"), boxes, root),
        labels,
        [_number(name, fields) for name in form.targets] or None,
    )


def _path(key: str, value: Any, root: str) -> str | None:
    """The path relative to the root, below which it must lie."""
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} {value!r} is no path")
    if os.path.isabs(value):
        value = os.path.relpath(value, os.path.abspath(root))
    try:
        return inside(value)
    except ValueError as error:
        raise ValueError(
            f"{key} {error}; paths must lie below root={root!r}: set another root"
        ) from error


def _masks(value: Any, boxes: Sequence | None, root: str) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != len(boxes or ()) or None in value:
        raise ValueError(
            f"masks {value!r} must be a path for each of {len(boxes or ())} boxes"
        )
    return [_path("mask", path, root) for path in value]


def _label(value: Any) -> int | str | None:
    if value is None or type(value) in (int, str):
        return value
    raise ValueError(f"label {value!r} is neither a class name nor a whole number")


def _labels(fields: Mapping[str, Any], separator: str) -> list[int | str] | None:
    """Several labels; None where an image has one, or nothing is said of it."""
    value = fields.get("label")
    if isinstance(value, list):
        return [_label(label) for label in value if label is not None]
    if not separator or "label" not in fields:
        return None
    parts = value.split(separator) if isinstance(value, str) else [value]
    parts = [part.strip() if isinstance(part, str) else part for part in parts]
    return [_label(part) for part in parts if part not in (None, "")]


def _number(name: str, fields: Mapping[str, Any]) -> float:
    value = fields.get(name)
    try:
        number = float(value) if type(value) in (int, float, str) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} {value!r} is no finite number, and is in targets")
    return number


def _boxes(value: Any) -> list[list[float]] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise ValueError(f"boxes {value!r} are not {_EXAMPLE}")
    return [_box(box) for box in value]


def _box(box: Any) -> list[float]:
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_finite, box))):
        raise ValueError(f"box {box!r} is not four numbers; boxes are {_EXAMPLE}")
    top, left, bottom, right = box
    if not (0 <= top < bottom and 0 <= left < right):
        raise ValueError(
            f"box {box!r} must have 0 <= top < bottom and 0 <= left < right; boxes "
            f"are {_EXAMPLE}"
        )
    return box


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _box_classes(value: Any, boxes: Sequence | None) -> list[int | str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != len(boxes or ()):
        raise ValueError(
            f"classes {value!r} must be one for each of {len(boxes or ())} boxes"
        )
    if None in value:
        raise ValueError(f"classes {value!r} must not be null")
    return [_label(label) for label in value]


def _check_complete(rows: Sequence[Row], problems: Problems) -> None:
    """A key on some lines and not on others is a mistake, not a label of 0."""
    has: dict[str, Callable[[Row], bool]] = {
        key: lambda row, key=key: getattr(row, key) is not None
        for key in ("label", "label_map", "boxes", "classes", "masks", "labels")
    }
    for key, present in has.items():
        if any(map(present, rows)):
            for row in rows:
                if not present(row):
                    problems.add(row.line, f"no {key}, which other lines have")
