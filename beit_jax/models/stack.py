"""Blocks of a transformer as one loop over parameters that are stacked."""

from collections.abc import Callable

import flax.linen as nn
import jax

from beit_jax.models.layers import Block

# What of each block is saved for the backward pass, which computes all else again.
REMAT = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,  # but the block's input
}
FEW = 6  # blocks that unroll="auto" writes out


def stack(
    depth: int, unroll: int | str, remat: str = "none"
) -> Callable[..., nn.Module]:
    """What is made as `Block` is, and is `depth` of them.

    It maps x and (L,) numbers and (L,) rates, see `Block`, to x and what each block
    returns besides, stacked.
    """
    block = Block
    if remat != "none":
        block = nn.remat(Block, prevent_cse=False, policy=REMAT[remat])
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True, "drop_path": True},
        in_axes=(0, nn.broadcast),
        length=depth,
        unroll=_unrolled(unroll, depth, remat),
        metadata_params={nn.PARTITION_NAME: "layers"},
    )


def _unrolled(unroll: int | str, depth: int, remat: str) -> int:
    """Blocks per iteration of the loop: `unroll` or, if "auto", what measures best.

    A loop fills with zeros, and copies, what it keeps for the backward pass. Few
    blocks are written out instead: faster, for seconds of compiling. With `remat`
    they are not, for without a loop XLA keeps what it should compute again.
    """
    if unroll != "auto":
        return unroll
    return depth if depth <= FEW and remat == "none" else 1
