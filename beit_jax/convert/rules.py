"""Rename tables between a foreign state dict and our tree, read in both directions.

A table is rows (theirs, ours, op): a name in the state dict, a path in our tree, and
what the arrays' layouts differ by. Numpy only.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

Tree = dict


class Op(NamedTuple):
    """How an array is laid out anew; `write` undoes `read`."""

    read: Callable[[np.ndarray], np.ndarray]  # theirs -> ours
    write: Callable[[np.ndarray], np.ndarray]  # ours -> theirs


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

Row = tuple[str, str, Op]


def read(table: Iterable[Row], state: Mapping[str, np.ndarray]) -> Tree:
    """Our nested tree from a state dict.

    Raises:
      ValueError: names that the table does not have, or that the state dict lacks.
    """
    rows = {theirs: (ours, op) for theirs, ours, op in table}
    _check(state.keys(), rows.keys(), "state dict")
    tree: Tree = {}
    for theirs, (ours, op) in rows.items():
        *folders, leaf = ours.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = np.ascontiguousarray(op.read(np.asarray(state[theirs])))
    return tree


def write(
    table: Iterable[Row], flat: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """A state dict from our leaves by path, as `weights.flatten` gives them.

    Raises:
      ValueError: paths that the table does not have, or that are missing.
    """
    rows = {ours: (theirs, op) for theirs, ours, op in table}
    _check(flat.keys(), rows.keys(), "tree")
    return {
        theirs: np.ascontiguousarray(op.write(np.asarray(flat[ours])))
        for ours, (theirs, op) in rows.items()
    }


def _check(have: Iterable[str], want: Iterable[str], what: str) -> None:
    have, want = set(have), set(want)
    if have != want:
        raise ValueError(
            f"{what} does not fit: it lacks {sorted(want - have)[:8]}, "
            f"and has besides {sorted(have - want)[:8]}"
        )
