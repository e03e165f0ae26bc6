"""The factor on each parameter's learning rate: by layer, and 0 where it is frozen."""

import fnmatch
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from beit_jax.checkpoints.names import covered, flatten, name_of

Tree = Any


def layer_scales(layers: Tree, decay: float) -> Tree:
    """The factor on each parameter's learning rate, `decay ** (top - layer)`.

    The largest layer has factor 1. Stacked blocks have a vector (L, 1, ...) that scales
    each block's slice.

    Raises:
      ValueError: `decay` is not 1 but there are no layers.
    """
    top = max(int(np.max(layer)) for layer in jax.tree.leaves(layers))
    if decay != 1 and not top:
        raise ValueError(
            f"optim.layer_decay={decay} needs an encoder with blocks; set it to 1"
        )
    return jax.tree.map(
        lambda layer: np.float32(decay ** (top - layer.astype(np.float64))), layers
    )


def resting(params: Tree, train: str) -> Tree:
    """True for each parameter that a run with `optim.train` leaves as it is.

    Args:
      train: patterns, "*bias,norm*,head"; a parameter trains if any part of its path
        is like one of them. Empty: all do.

    Raises:
      ValueError: a pattern that no parameter has.
    """
    patterns = list(filter(None, train.split(",")))
    parts = [name.split("/") for name in flatten(params)]
    for pattern in patterns:
        if not any(fnmatch.filter(path, pattern) for path in parts):
            raise ValueError(
                f"optim.train={pattern!r} is like no part of a parameter's path; they "
                f"have {', '.join(sorted({part for path in parts for part in path}))}"
            )

    def rests(path, _) -> bool:
        mine = name_of(path).split("/")
        return bool(patterns) and not any(fnmatch.filter(mine, p) for p in patterns)

    return jax.tree_util.tree_map_with_path(rests, params)


def trained(params: Tree, layers: Tree, freeze: str, freeze_blocks: int) -> Tree:
    """1 for each parameter that trains and 0 for each that is frozen.

    Args:
      freeze: prefixes of paths, "a,b/c".
      freeze_blocks: so many first blocks, and with them the embeddings. A table of
        relative positions that all blocks share does train.

    Returns:
      Numbers, and vectors (L, 1, ...) for stacked blocks.

    Raises:
      ValueError: a prefix that no parameter has, fewer blocks, or nothing that trains.
    """
    resting = covered(params, freeze, "optim.freeze")
    stacked = [layer for layer in jax.tree.leaves(layers) if layer.ndim]
    depth = max((int(layer.max()) for layer in stacked), default=0)
    if freeze_blocks > depth:
        raise ValueError(
            f"optim.freeze_blocks={freeze_blocks}, but the model has {depth or 'no'} "
            "blocks"
        )

    def trains(path, _, layer):
        if name_of(path) in resting:
            return np.float32(0)
        return np.float32((layer > freeze_blocks) | (freeze_blocks == 0))

    made = jax.tree_util.tree_map_with_path(trains, params, layers)
    if not any(np.any(leaf) for leaf in jax.tree.leaves(made)):
        raise ValueError(
            f"optim.freeze={freeze!r} with optim.freeze_blocks={freeze_blocks} leaves "
            "nothing to train; python -m beit_jax.evaluate measures without training"
        )
    return made


def scales(config: ConfigDict, params: Tree, layers: Tree) -> Tree:
    """The factors of a run: those of layer-wise decay, and 0 where it is frozen.

    Args:
      config: the section `optim`.
      params: unboxed parameters or their shapes.
      layers: the number of each one's layer, see `Task.layers`.
    """
    factors = trained(params, layers, config.freeze, config.freeze_blocks)
    if config.train:
        rests = resting(params, config.train)
        factors = jax.tree.map(
            lambda factor, rest: factor * np.float32(not rest), factors, rests
        )
    if config.layer_decay == 1:
        return factors
    return jax.tree.map(np.multiply, factors, layer_scales(layers, config.layer_decay))


def hold(params: Tree, factors: Tree) -> Tree:
    """The same parameters; those with a factor of 0 take no gradient.

    What is frozen whole costs no backward pass. Stacked blocks do as long as one of
    them trains: they are one loop.
    """

    def one(leaf, factor):
        if np.all(factor):
            return leaf
        still = jax.lax.stop_gradient(leaf)
        return jnp.where(factor > 0, leaf, still) if np.any(factor) else still

    return jax.tree.map(one, params, factors)
