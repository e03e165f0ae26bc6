"""Turns the parameters of one encoder into those of a related one."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from beit_jax.models import positions
from beit_jax.models.patches import Grid, size_and_grid

Tree = Any

# Last part of a position table's path -> what resizes it.
TABLES = {
    "table": positions.resize_offsets,
    "pos_embed": positions.resize_embedding,
}


def shared_to_per_block(encoder_params: Mapping[str, Tree], depth: int) -> Tree:
    """Gives every block its own copy of the shared position-bias table.

    Pre-training shares one table (`rel_pos_bias="shared"`); fine-tuning starts with
    copies of it (`"per_block"`). The encoder computes the same before and after.

    Args:
      encoder_params: unboxed parameters of an `Encoder` with a shared table (R, A).
      depth: L, the number of blocks.

    Returns:
      A new tree, with `blocks/attn/rel_pos_bias/table` (L, R, A) instead.

    Raises:
      ValueError: there is no shared table.
    """
    if "rel_pos_bias" not in encoder_params:
        raise ValueError(
            f"no shared table rel_pos_bias/table among {sorted(encoder_params)}"
        )
    params = dict(encoder_params)
    table = np.asarray(params.pop("rel_pos_bias")["table"])
    copies = np.broadcast_to(table, (depth, *table.shape))
    attention = {**params["blocks"]["attn"], "rel_pos_bias": {"table": copies}}
    params["blocks"] = {**params["blocks"], "attn": attention}
    return params


def per_block_to_shared(encoder_params: Mapping[str, Tree]) -> Tree:
    """Undoes `shared_to_per_block`.

    Raises:
      ValueError: the blocks' tables differ, so that none of them serves all.
    """
    params = dict(encoder_params)
    attention = dict(params["blocks"]["attn"])
    tables = np.asarray(attention.pop("rel_pos_bias")["table"])
    if (tables != tables[0]).any():
        raise ValueError(
            "weights have a table of relative positions for each block, and which of "
            "them all blocks should share is not defined; set "
            "model.rel_pos_bias='per_block'"
        )
    params["blocks"] = {**params["blocks"], "attn": attention}
    return {**params, "rel_pos_bias": {"table": tables[0]}}


def resize_positions(encoder_params: Mapping[str, Tree], old: Grid, new: Grid) -> Tree:
    """Makes an encoder's position tables, relative and absolute, serve another grid.

    Args:
      encoder_params: unboxed parameters of an `Encoder`, on the host.
      old: (h, w) patches that the tables are for.
      new: those that they are to be for.

    Returns:
      A new tree; everything but the tables is the same.

    Raises:
      ValueError: tables that are not for `old`.
    """

    def resize(path, leaf):
        if path[-1].key not in TABLES or tuple(old) == tuple(new):
            return leaf
        return TABLES[path[-1].key](np.asarray(leaf), old, new)

    return jax.tree_util.tree_map_with_path(resize, encoder_params)


def adapt(params: Tree, model: Mapping[str, Any], encoder: Any) -> Tree:
    """What `vit.Encoder.adapt` does, for `encoder`.

    Tables of another grid are resized, fixed positions become a table to be learned, a
    shared table of relative ones is copied to every block that is to have its own.
    """
    _, old = size_and_grid(model)
    if model.get("abs_pos_embed") == "sincos":
        params = _from_sincos(params, old, encoder)
    params = resize_positions(params, old, encoder.grid)
    own = "rel_pos_bias" in params.get("blocks", {}).get("attn", {})
    if encoder.rel_pos_bias == "shared" and own:
        params = per_block_to_shared(params)
    if encoder.rel_pos_bias == "per_block" and "rel_pos_bias" in params:
        params = shared_to_per_block(params, encoder.depth)
    return params


def _from_sincos(params: Tree, old: Grid, encoder: Any) -> Tree:
    if encoder.abs_pos_embed == "learned":
        return params | {"pos_embed": positions.sincos(old, encoder.dim)}
    if encoder.abs_pos_embed == "sincos" and old != tuple(encoder.grid):
        raise ValueError(
            f"weights were trained with sin-cos positions of {old[0]}x{old[1]} "
            f"patches, which {encoder.grid[0]}x{encoder.grid[1]} would be other "
            "ones; set model.abs_pos_embed='learned', which starts from those"
        )
    return params
