"""Rename tables between a foreign state dict and our tree, read in both directions.

A table is rows (theirs, ours, op): a name in the state dict, or the names of several
arrays that make one of ours; a path in {"params": ..., and mutable collections}; and
what the arrays' layouts differ by. With "{i}" in theirs, ours is stacked over i = 0, 1,
... on its first axis. Numpy only.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np

from beit_jax.checkpoints.names import nest

Tree = dict
Array = np.ndarray


class Undecided(ValueError):
    """What a flag of the command `python -m beit_jax.convert` would decide."""


class Op(NamedTuple):
    """How an array is laid out anew; `write` undoes `read`.

    Where a row has several names, `read` takes as many arrays and `write` gives them.
    """

    read: Callable[..., Array]  # theirs -> ours
    write: Callable[[Array], Any]  # ours -> theirs


def permute(*axes: int) -> Op:
    """Transposes theirs by `axes` to get ours."""
    back = tuple(np.argsort(axes))
    return Op(lambda x: x.transpose(axes), lambda x: x.transpose(back))


SAME = Op(lambda x: x, lambda x: x)
LINEAR = permute(1, 0)  # (out, in) -> (in, out)
CONV = permute(2, 3, 1, 0)  # OIHW -> HWIO
CONV_TRANSPOSE = permute(2, 3, 0, 1)  # torch's (in, out, H, W) -> (H, W, in, out)
# As CONV, but a 1x1 convolution is a Dense layer of ours, (in, out).
ANY_CONV = Op(
    lambda x: LINEAR.read(x[:, :, 0, 0]) if x.shape[2:] == (1, 1) else CONV.read(x),
    lambda x: LINEAR.write(x)[:, :, None, None] if x.ndim == 2 else CONV.write(x),
)

Row = tuple[str | tuple[str, ...], str, Op]


class Hints(NamedTuple):
    """What a user says where a source does not."""

    image_size: int | tuple[int, int] | None = None  # pixels, or height and width
    heads: int | None = None
    pixels: str = ""  # one of PIXEL_SPACES


NO_HINTS = Hints()


def depth(names: Iterable[str], pattern: str) -> int:
    """How many blocks there are, of which `pattern` finds the number in a name."""
    numbers = (re.search(pattern, name) for name in names)
    return 1 + max((int(match[1]) for match in numbers if match), default=-1)


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of an image_size, which may be the side of a square."""
    return (size, size) if isinstance(size, int) else tuple(size)


class Understood(NamedTuple):
    """What a family makes of a state dict, before its arrays are touched."""

    rows: list[Row]
    sections: dict[str, Any]  # of config.new: task, model, data
    card: dict[str, Any] = {}  # what the sections do not tell: class_names
    ignorable: tuple[str, ...] = ()  # patterns of names that mean nothing here
    notes: tuple[str, ...] = ()  # what was assumed, in sentences
    complete: Callable[[Tree], None] = lambda tree: None  # adds what no file has


class Foreign(NamedTuple):
    """What a family writes in a dialect."""

    rows: list[Row]
    ignorable: tuple[str, ...] = ()  # patterns of our paths that have no place there
    extra: Mapping[str, Array] = {}  # arrays that follow from the others
    texts: Mapping[str, Any] = {}  # file name -> JSON, to lie beside
    notes: tuple[str, ...] = ()


class Report(NamedTuple):
    """What became of the names of a source."""

    taken: list[str]
    ignored: list[str]  # they mean nothing on the other side
    left: list[str]  # they have no place there, as the user allows
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"took {len(self.taken)} arrays"]
        for what, names in (("ignored", self.ignored), ("left behind", self.left)):
            if names:
                shown = f"{', '.join(names[:8])}{', …' if names[8:] else ''}"
                lines.append(f"{what} {len(names)}: {shown}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def read(
    rows: Iterable[Row],
    state: Mapping[str, Array],
    ignorable: Iterable[str] = (),
    allow: Iterable[str] = (),
) -> tuple[Tree, Report]:
    """Our nested tree from a state dict; numbers become float32.

    Args:
      ignorable: patterns ("*.relative_position_index") of names that mean nothing.
      allow: patterns of names to leave behind.

    Raises:
      ValueError: names that the table lacks, or that the state dict does.
    """
    rows = list(rows)
    depths = _depths(rows, state)
    layers = {row[0]: _layers(row[0], depths.get(_start(row[0]), 1)) for row in rows}
    wanted = [name for each in layers.values() for names in each for name in names]
    report = _match(wanted, state, ignorable, allow, "the state dict")
    flat = {}
    for theirs, ours, op in rows:
        made = _stacked(state, layers[theirs], op)
        flat[ours] = made if _is_stack(theirs) else made[0]
    return nest(flat), report


def write(
    rows: Iterable[Row],
    flat: Mapping[str, Array],
    ignorable: Iterable[str] = (),
    allow: Iterable[str] = (),
) -> tuple[dict[str, Array], Report]:
    """A state dict from our leaves by path, as `weights.flatten` gives them.

    Several rows may write one array, each its part of it and zeros elsewhere.

    Args:
      ignorable, allow: as in `read`, patterns of our paths.

    Raises:
      ValueError: paths that the table does not have, or that are missing.
    """
    rows = list(rows)
    wanted = [ours for _, ours, _ in rows]
    report = _match(wanted, flat, ignorable, allow, "the checkpoint")
    state = {}
    for theirs, ours, op in rows:
        leaf = np.asarray(flat[ours])
        stack = leaf if _is_stack(theirs) else leaf[None]
        for names, x in zip(_layers(theirs, len(stack)), stack, strict=True):
            parts = op.write(x)
            parts = parts if isinstance(parts, tuple) else (parts,)
            for name, part in zip(names, parts, strict=True):
                part = np.ascontiguousarray(part)
                state[name] = _joined(state[name], part) if name in state else part
    return state, report


def _joined(one: Array, other: Array) -> Array:
    """Of two arrays that are zero where the other is not; -0.0 stays what it is."""
    bits = np.bitwise_or(one.view(np.uint8), other.view(np.uint8))
    return bits.view(one.dtype)


def _match(
    wanted: Iterable[str],
    have: Iterable[str],
    ignorable: Iterable[str],
    allow: Iterable[str],
    where: str,
) -> Report:
    wanted, ignorable, allow = set(wanted), tuple(ignorable), tuple(allow)
    rest = sorted(set(have) - wanted)
    ignored = [name for name in rest if _is_any(name, ignorable)]
    rest = [name for name in rest if not _is_any(name, ignorable)]
    left = [name for name in rest if _is_any(name, allow)]
    unmatched = [name for name in rest if not _is_any(name, allow)]
    if missing := sorted(wanted - set(have)):
        raise ValueError(
            f"{where} lacks {_brief(missing)}"
            + (f", and has besides {_brief(unmatched)}" if unmatched else "")
        )
    if unmatched:
        patterns = ",".join(sorted(set(map(_pattern, unmatched))))
        raise Undecided(
            f"{where} has what would be lost: {_brief(unmatched)}. Is it of another "
            f"network? To leave these behind: --allow '{patterns}'"
        )
    return Report(sorted(wanted), ignored, left)


def _is_any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _brief(names: list[str]) -> str:
    more = f" and {len(names) - 8} more" if names[8:] else ""
    return ", ".join(names[:8]) + more


def _pattern(name: str) -> str:
    """What leaves `name` behind, and its kind: "lm_head.*", "params/lm_head/*"."""
    if "/" in name:
        folder, _, leaf = name.rpartition("/")
        return f"{folder}/*" if leaf in ("kernel", "bias", "scale") else name
    word, dot, _ = name.partition(".")
    return f"{word}.*" if dot else name


def first(theirs: str | tuple[str, ...]) -> str:
    """A row's name, of several the first."""
    return theirs if isinstance(theirs, str) else theirs[0]


def _is_stack(theirs: str | tuple[str, ...]) -> bool:
    return "{i}" in first(theirs)


def _layers(theirs: str | tuple[str, ...], depth: int) -> list[tuple[str, ...]]:
    """The names of a row, one tuple for each layer; one in all if it has no {i}."""
    names = (theirs,) if isinstance(theirs, str) else theirs
    count = depth if _is_stack(theirs) else 1
    return [tuple(name.replace("{i}", str(i)) for name in names) for i in range(count)]


def _start(theirs: str | tuple[str, ...]) -> str:
    """What is before the number of the layer: rows that share it, share that."""
    return first(theirs).partition("{i}")[0]


def _depths(rows: Iterable[Row], state: Iterable[str]) -> dict[str, int]:
    """How many layers the names tell of, of each stack by its `_start`."""
    starts = {_start(row[0]) for row in rows if _is_stack(row[0])}

    def depth(start: str) -> int:
        ours = (name for name in state if name.startswith(start))
        found = [re.match(r"\d+", name.removeprefix(start)) for name in ours]
        return 1 + max((int(match[0]) for match in found if match), default=-1)

    return {start: depth(start) for start in starts}


def _stacked(
    state: Mapping[str, Array], layers: list[tuple[str, ...]], op: Op
) -> Array:
    """Ours of one row for all layers: filled one by one, so that none is held twice."""
    made = None
    for i, names in enumerate(layers):
        x = op.read(*(np.asarray(state[name]) for name in names))
        if made is None:
            dtype = x.dtype if x.dtype.kind in "biu" else np.float32
            made = np.empty((len(layers), *x.shape), dtype)
        if x.shape != made.shape[1:]:
            raise ValueError(
                f"{names[0]} has another shape than in layer 0: {x.shape}, "
                f"{made.shape[1:]}"
            )
        made[i] = x
    return made
