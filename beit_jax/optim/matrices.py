"""Muon and Adafactor: what looks at a parameter as a matrix, block by block.

Blocks are stacked on axis 0, and attention's kernels have axes for heads and for q, k
and v: which of them are rows and columns, MATRICES says.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from beit_jax.checkpoints.names import name_of
from beit_jax.optim.groups import Group

Tree = Any


class Axes(NamedTuple):
    """Of a stacked kernel; all others are of matrices side by side."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]


# How the path of a hidden matrix ends. All else is a vector, a table or meets pixels or
# classes.
MATRICES = {
    "blocks/attn/qkv": Axes((1,), (3, 4)),  # (L, D, 3, A, K): q, k and v by themselves
    "blocks/attn/proj/kernel": Axes((1, 2), (3,)),  # (L, A, K, D)
    "blocks/mlp/fc1/kernel": Axes((1,), (2,)),
    "blocks/mlp/fc2/kernel": Axes((1,), (2,)),
}
RMS = 0.2  # of an update, about that of AdamW's: arXiv:2502.16982


def axes_of(path) -> Axes | None:
    """None of what is no hidden matrix."""
    name = name_of(path)
    return next((axes for end, axes in MATRICES.items() if name.endswith(end)), None)


def muon(group: Group) -> list[optax.GradientTransformation]:
    """Hidden matrices by Muon as Optax has it, all else by AdamW at the same rate.

    Of `momentum` (0.95 is usual), b1, b2 and eps the first is Muon's. Updates have the
    size of AdamW's, so that its rate and weight decay serve (Liu et al.,
    arXiv:2502.16982).

    Raises:
      ValueError: none of the group's parameters is such a matrix.
    """
    settings = group.settings
    labels = jax.tree_util.tree_map_with_path(
        lambda path, _: "adam" if axes_of(path) is None else "muon", group.layers
    )
    if "muon" not in jax.tree.leaves(labels):
        raise ValueError(
            f"{group.where}.name='muon' is for the matrices of an encoder's blocks, "
            "and there are none; take 'adamw'"
        )
    matrices = optax.chain(
        scale_by_muon(
            beta=settings.momentum, weight_dimension_numbers=_dimension_numbers
        ),
        optax.stateless(lambda updates, _: _sized(updates)),
    )
    others = optax.scale_by_adam(settings.b1, settings.b2, settings.eps)
    return [
        optax.partition({"muon": matrices, "adam": others}, labels),
        optax.add_decayed_weights(group.decay, group.decayed),
    ]


def _dimension_numbers(params: Tree) -> Tree:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: MuonDimensionNumbers(*axes_of(path)), params
    )


def _sized(updates: Tree) -> Tree:
    """Orthogonal matrices times RMS * sqrt(the longer side)."""

    def one(path, update):
        sides = [math.prod(update.shape[i] for i in axes) for axes in axes_of(path)]
        return update * (RMS * math.sqrt(max(sides)))

    return jax.tree_util.tree_map_with_path(one, updates)


def adafactor(group: Group) -> list[optax.GradientTransformation]:
    """Adafactor (Shazeer and Stern, arXiv:1804.04235) at a rate of its own.

    Second moments of matrices from 128 x 128 on are kept as rows and columns; there is
    no first moment, nor does the rate follow a parameter's size. An update's root mean
    square is at most 1, of each block by itself. Of b1, b2 and eps none is used.
    """
    moments = optax.scale_by_factored_rms()
    return [
        optax.GradientTransformation(
            lambda params: moments.init(_flat(params)),
            lambda updates, state, params: _unflat(
                moments.update(_flat(updates), state, _flat(params)), updates
            ),
        ),
        optax.stateless(
            lambda updates, _: jax.tree.map(_clipped, updates, group.layers)
        ),
        optax.add_decayed_weights(group.decay, group.decayed),
    ]


def _flat(tree: Tree) -> Tree:
    """Hidden matrices as (L, rows, columns), q, k and v side by side."""

    def one(path, leaf):
        axes = axes_of(path)
        if axes is None:
            return leaf
        depth, last = leaf.shape[0], max(axes.rows) + 1
        rows = jnp.reshape(leaf, (depth, *leaf.shape[1:last], -1))
        return jnp.reshape(rows, (depth, -1, rows.shape[-1]))

    return jax.tree_util.tree_map_with_path(one, tree)


def _unflat(made: tuple[Tree, Tree], like: Tree) -> tuple[Tree, Tree]:
    updates, state = made
    shaped = jax.tree.map(lambda leaf, old: leaf.reshape(old.shape), updates, like)
    return shaped, state


def _clipped(update: jax.Array, layer) -> jax.Array:
    """An update with a root mean square of at most 1, of each stacked block alone."""

    def alone(update):
        return update / jnp.maximum(1.0, jnp.sqrt(jnp.mean(jnp.square(update))))

    return (jax.vmap(alone) if layer.ndim else alone)(update)
