"""What the pixels of label maps mean: stored numbers or colours -> classes."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from beit_jax.data.sources.base import BadExample
from beit_jax.lookup import call

IGNORED_LABEL = 255  # of a pixel that is not looked at
_UNKNOWN = 254  # in a table: what no class has
_MOST = 254  # classes
_IDS, _COLOURS = 2**16, 2**24


class Meaning(NamedTuple):
    """What a section `labels` of a source may say of its label maps.

    By default a pixel is the number of its class, and 255 is ignored.
    """

    reduce_zero_label: bool = False  # 0 is ignored, 1 is class 0, and so on
    palette: tuple = ()  # colours (r, g, b) of the classes, in their order, in RGB maps
    # Numbers of the classes, in their order, of up to 16 bits; several of one class as
    # a tuple. All others are ignored.
    ids: tuple = ()
    ignore: tuple = ()  # more numbers (with a palette: colours) that are ignored

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any] | tuple, class_names: Sequence[str] = ()
    ) -> "Meaning":
        """Raises ValueError for what does not fit together or the classes."""
        given = call(cls, dict(config), "labels of a source")
        meaning = cls(*(_plain(value) for value in given))
        meaning._check(class_names)
        return meaning

    @property
    def told(self) -> tuple[str, ...]:
        """What a source's digest tells of it; nothing by default."""
        return () if self == Meaning() else (repr(tuple(self)),)

    @property
    def deep(self) -> bool:
        """Whether maps may have 16 bits."""
        return bool(self.ids)

    def of(self, data: bytes | np.ndarray) -> "bytes | np.ndarray | LabelMap":
        """A stored label map as a Record has it."""
        return data if self == Meaning() else LabelMap(data, self)

    def classes(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W) integers, or (H, W, 3) uint8 with a palette -> (H, W) uint8.

        Raises:
          BadExample: a colour that is no class's.
        """
        if self == Meaning():
            return pixels.astype(np.uint8)
        stored = pixels @ [2**16, 2**8, 1] if self.palette else pixels
        made = _table(self)[stored]
        if self.palette and (made == _UNKNOWN).any():
            colour = tuple(pixels[made == _UNKNOWN][0].tolist())
            raise BadExample(
                f"the label map has {(made == _UNKNOWN).sum()} pixels of colours that "
                f"are not in labels.palette, {colour} say; add it, or ignore it by "
                "labels.ignore"
            )
        return made

    def _check(self, class_names: Sequence[str]) -> None:
        of_classes = self.palette or self.ids
        several = [n for n, value in self._asdict().items() if value and n != "ignore"]
        if len(several) > 1:
            raise ValueError(
                f"labels: {' and '.join(several)} are set, each of them instead of the "
                "other; leave one"
            )
        numbers = [n for entry in of_classes for n in _numbers(self, entry)]
        ignored = [n for entry in self.ignore for n in _numbers(self, entry)]
        if len({*numbers, *ignored}) < len(numbers) + len(ignored):
            raise ValueError(f"labels: a number or colour is there twice: {self}")
        if of_classes and class_names and len(of_classes) != len(class_names):
            raise ValueError(
                f"labels say what {len(of_classes)} classes are, and there are "
                f"{len(class_names)} class_names"
            )
        if len(of_classes) > _MOST:
            raise ValueError(f"labels of {len(of_classes)} classes; at most {_MOST} do")


class LabelMap(NamedTuple):
    """A label map as it is stored, encoded or (H, W) integers, and its meaning."""

    data: bytes | np.ndarray
    meaning: Meaning


def _plain(value: Any) -> Any:
    """With tuples for lists, so that it can be a key."""
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value


def _numbers(meaning: Meaning, entry: Any) -> list[int]:
    """The stored numbers that an entry of palette, ids or ignore tells.

    Raises:
      ValueError: it is none.
    """
    if meaning.palette:
        if not (_are_levels(entry, 256) and len(entry) == 3):
            raise ValueError(f"labels: {entry!r} must be a colour, three of 0 .. 255")
        red, green, blue = entry
        return [red << 16 | green << 8 | blue]
    entry = entry if isinstance(entry, tuple) else (entry,)
    if not _are_levels(entry, _IDS):
        raise ValueError(f"labels: {entry!r} must be numbers in 0 .. {_IDS - 1}")
    return list(entry)


def _are_levels(entry: Any, count: int) -> bool:
    return isinstance(entry, tuple) and all(
        type(level) is int and 0 <= level < count for level in entry
    )


@functools.cache
def _table(meaning: Meaning) -> np.ndarray:
    """Stored number -> class, uint8."""
    if meaning.palette:
        table = np.full(_COLOURS, _UNKNOWN, np.uint8)
    elif meaning.ids:
        table = np.full(_IDS, IGNORED_LABEL, np.uint8)
    else:
        table = np.arange(256, dtype=np.uint8) - np.uint8(meaning.reduce_zero_label)
        table[-1] = IGNORED_LABEL
    for number, entry in enumerate(meaning.palette or meaning.ids):
        table[_numbers(meaning, entry)] = number
    for entry in meaning.ignore:
        table[_numbers(meaning, entry)] = IGNORED_LABEL
    return table
