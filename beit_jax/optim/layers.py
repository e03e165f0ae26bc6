"""The factor on each parameter's learning rate: by layer, and 0 where it is frozen."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from beit_jax.checkpoints.names import covered, name_of

Tree = Any

# Parameters below the first block: layer 0 of layer-wise decay.
EMBEDDINGS = frozenset(["cls_token", "mask_token", "pos_embed", "patch_embed"])


def is_stacked(path: tuple) -> bool:
    """Whether a parameter holds all blocks, one after the other on axis 0."""
    return any(part.key == "blocks" for part in path)


def _is_embedding(path: tuple) -> bool:
    return any(part.key in EMBEDDINGS for part in path)


def _depth(params: Tree) -> int:
    """L, the number of stacked blocks; 0 if there are none, or stacks that differ."""
    depths = {
        leaf.shape[0]
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if is_stacked(path)
    }
    return depths.pop() if len(depths) == 1 else 0


def _per_block(values: np.ndarray, leaf) -> np.ndarray:
    """(L,) -> (L, 1, ...), to multiply stacked parameters with."""
    return values.reshape(-1, *[1] * (leaf.ndim - 1)).astype(np.float32)


def layer_scales(params: Tree, decay: float) -> Tree:
    """The factor on each parameter's learning rate, `decay ** (L + 1 - layer)`.

    Embeddings are layer 0, block i is layer i + 1, the rest layer L + 1 (factor 1).
    Stacked blocks get a vector (L, 1, ...) that scales each block's slice.

    Raises:
      ValueError: `decay` is not 1 but the parameters have no `blocks`.
    """
    depth = _depth(params)
    if decay != 1 and not depth:
        raise ValueError(
            f"optim.layer_decay={decay} needs an encoder with blocks; set it to 1"
        )

    def scale(path, leaf):
        if is_stacked(path):
            return _per_block(decay ** np.arange(depth, 0, -1, dtype=np.float64), leaf)
        return np.float32(decay ** (depth + 1) if _is_embedding(path) else 1.0)

    return jax.tree_util.tree_map_with_path(scale, params)


def trained(params: Tree, freeze: str, freeze_blocks: int) -> Tree:
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
    if freeze_blocks > (depth := _depth(params)):
        raise ValueError(
            f"optim.freeze_blocks={freeze_blocks}, but the model has {depth or 'no'} "
            "blocks"
        )

    def trains(path, leaf):
        if name_of(path) in resting:
            return np.float32(0)
        if is_stacked(path):
            return _per_block(np.arange(leaf.shape[0]) >= freeze_blocks, leaf)
        return np.float32(not (freeze_blocks and _is_embedding(path)))

    made = jax.tree_util.tree_map_with_path(trains, params)
    if not any(np.any(leaf) for leaf in jax.tree.leaves(made)):
        raise ValueError(
            f"optim.freeze={freeze!r} with optim.freeze_blocks={freeze_blocks} leaves "
            "nothing to train; python -m beit_jax.evaluate measures without training"
        )
    return made


def of(config: ConfigDict, params: Tree) -> Tree:
    """The factors of a run: those of layer-wise decay, and 0 where it is frozen.

    Args:
      config: the section `optim`.
      params: unboxed parameters or their shapes.
    """
    factors = trained(params, config.freeze, config.freeze_blocks)
    if config.layer_decay == 1:
        return factors
    return jax.tree.map(np.multiply, factors, layer_scales(params, config.layer_decay))


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
