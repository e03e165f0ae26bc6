"""Paths of parameters as names, and what fits what by them."""

import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np

from beit_jax.lookup import nearest

Tree = Any

_FEW = 4  # parameters that are named each by itself


def name_of(path: tuple) -> str:
    """A path in a tree as "encoder/blocks/norm1/scale"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten(tree: Tree) -> dict[str, Any]:
    """Name of the path -> leaf."""
    return {name_of(p): x for p, x in jax.tree_util.tree_leaves_with_path(tree)}


def nest(flat: Mapping[str, Any]) -> Tree:
    """Undoes `flatten`: name of the path -> leaf, as a tree of dicts.

    Raises:
      ValueError: a name is that of a leaf and of a folder.
    """
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
            if not isinstance(node, dict):
                raise ValueError(f"both {folder!r} and {path!r}")
        node[name] = leaf
    return tree


def check_fit(have: Tree, want: Tree, where: str) -> None:
    """Raises ValueError with a table of parameter, have, want unless shapes agree."""
    have, want = flatten(have), flatten(want)
    rows = [
        f"  {path}: have {_form(have.get(path))}, want {_form(want.get(path))}"
        for path in sorted(have.keys() | want.keys())
        if _form(have.get(path)) != _form(want.get(path))
    ]
    if rows:
        raise ValueError(f"{where} does not fit this run:\n" + "\n".join(rows))


def _form(leaf: Any) -> str:
    return (
        "nothing" if leaf is None else f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"
    )


def _ends(path: str) -> list[int]:
    """Where the path "a/b/c" may be cut: after a, after b, after c."""
    return [i for i, letter in enumerate(path) if letter == "/"] + [len(path)]


def covered(params: Tree, prefixes: str, where: str) -> frozenset[str]:
    """Names of the parameters that path prefixes "a,b/c" cover.

    Args:
      where: the setting that has the prefixes, for messages.

    Raises:
      ValueError: a prefix that no parameter is or begins with.
    """
    names = flatten(params)
    begins = {name[:at] for name in names for at in _ends(name)}
    asked = set(filter(None, prefixes.split(",")))
    for prefix in sorted(asked - begins):
        raise ValueError(
            f"{where}={prefix!r}: no parameter is or begins so{nearest(prefix, begins)}"
        )
    return frozenset(
        name for name in names if any(name[:at] in asked for at in _ends(name))
    )


def brief(names: Collection[str], every: Collection[str]) -> str:
    """Some of `every`; by what they begin with where all that does are many."""

    def shortest(name: str) -> str:
        for at in _ends(name):
            alike = [other for other in every if other.startswith(name[:at] + "/")]
            if len(alike) > _FEW and names >= {*alike}:
                return f"{name[:at]}/…"
        return name

    names = dict.fromkeys(names).keys()
    return ", ".join(dict.fromkeys(map(shortest, names)))


def merge(
    fresh: Tree, taken: Tree, keep_fresh: str, where: pathlib.Path
) -> tuple[Tree, str]:
    """`fresh` parameters with those of another run in their places.

    Args:
      keep_fresh: prefixes of paths, "a,b/c", that keep their fresh values.
      where: the checkpoint's path, for messages.

    Returns:
      The parameters, and a report of what was taken, is fresh, was left behind.

    Raises:
      ValueError: shapes differ (lists parameter, have, want), or nothing matches.
    """
    source, target = flatten(taken), flatten(fresh)
    kept = covered(fresh, keep_fresh, "init_fresh")
    both = [path for path in target if path in source and path not in kept]
    wrong = [
        f"  {path}: have {list(source[path].shape)}, want {list(target[path].shape)}"
        for path in both
        if source[path].shape != target[path].shape
    ]
    if wrong:
        raise ValueError(
            f"{where} does not fit:\n" + "\n".join(wrong) + "\nChange the model, or "
            "name these parameters (or what they begin with) in init_fresh"
        )
    if not both:
        raise ValueError(
            f"{where} has no parameter of this model, only {', '.join(sorted(source))}"
        )

    def pick(path, leaf):
        name = name_of(path)
        if name not in both:
            return leaf
        return jax.device_put(source[name].astype(leaf.dtype), leaf.sharding)

    rest = [path for path in target if path not in both]
    left = [path for path in source if path not in both]
    report = f"from {where}: took {len(both)} parameters"
    report += f"; fresh: {brief(rest, target)}" if rest else "; nothing is fresh"
    report += f"; left behind: {brief(left, source)}" if left else ""
    return jax.tree_util.tree_map_with_path(pick, fresh), report
