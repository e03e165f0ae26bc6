"""Turns the parameters of one encoder into those of a related one."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

Tree = Any


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
    table = params.pop("rel_pos_bias")["table"]
    copies = jnp.broadcast_to(table, (depth, *table.shape))
    attention = {**params["blocks"]["attn"], "rel_pos_bias": {"table": copies}}
    params["blocks"] = {**params["blocks"], "attn": attention}
    return params
