"""The BEiT encoder: a vision transformer over patches, some of them hidden."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from beit_jax.models.layers import (
    Array,
    Block,
    LayerNorm,
    PatchEmbed,
    RelPosBias,
    init_normal,
)
from beit_jax.sharding import constrain, partitioned

VARIANTS = {
    "tiny": {"dim": 192, "depth": 12, "heads": 3},
    "small": {"dim": 384, "depth": 12, "heads": 6},
    "base": {"dim": 768, "depth": 12, "heads": 12},
    "large": {"dim": 1024, "depth": 24, "heads": 16},
}


class Features(NamedTuple):
    """What the encoder returns; token 0 is [CLS], patches follow row by row."""

    tokens: Array  # (B, 1+N, D) after the last norm, raw when there is none
    hidden: Array | None  # (T, B, 1+N, D) float32 raw outputs of the blocks in `taps`
    grid: tuple[int, int]  # (h, w), h * w == N


class Encoder(nn.Module):
    """Image -> features of [CLS] and of every patch.

    Attributes:
      grid: (h, w) patches for which the position tables are made.
      abs_pos_embed: add a learned embedding to each position.
      rel_pos_bias: "shared" (one table for all blocks), "per_block" or "none".
      layer_scale: initial value of the residual branches' gammas; 0 = no gammas.
      drop_path: rate of the last block; the rates rise linearly from 0.
      mask_token: have the parameter that stands in for hidden patches.
      final_norm: normalise the tokens (a mean-pooling classifier norms after it).
      taps: blocks, counting from 0, whose outputs are returned as `hidden`.
      dtype: of the operands of matrix products and of the returned tokens.
      remat: recompute each block's activations in the backward pass.
      unroll: blocks per iteration of the loop over blocks; more compile slower.
    """

    grid: tuple[int, int]
    dim: int
    depth: int
    heads: int
    patch_size: int = 16
    mlp_ratio: float = 4.0
    abs_pos_embed: bool = False
    rel_pos_bias: str = "shared"
    layer_scale: float = 0.1
    drop_path: float = 0.0
    norm_eps: float = 1e-6
    mask_token: bool = False
    final_norm: bool = True
    taps: tuple[int, ...] = ()
    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    unroll: int = 1

    @nn.compact
    def __call__(
        self, image: Array, mask: Array | None = None, *, train: bool = False
    ) -> Features:
        """Encodes images.

        Args:
          image: (B, H, W, 3) float, already normalised.
          mask: (B, N) bool, True where a patch is hidden, or None.
          train: apply drop-path, which draws from the rng collection "drop_path".

        Raises:
          ValueError: settings, image or mask that do not fit each other.
        """
        self._check_settings()
        x = PatchEmbed(self.dim, self.patch_size, self.dtype, name="patch_embed")(image)
        grid = x.shape[1:3]
        self._check_grid(grid)
        x = self._add_tokens(x.reshape(len(x), -1, self.dim), mask)
        bias = None
        if self.rel_pos_bias == "shared":
            bias = RelPosBias(self.grid, self.heads, name="rel_pos_bias")()
        x, outputs = self._blocks(train)(x, self._layers(), bias)
        x = constrain(x, "batch", None, None)
        hidden = outputs[np.array(self.taps)] if self.taps else None
        if self.final_norm:
            x = LayerNorm(self.norm_eps, name="norm")(x)
        return Features(x.astype(self.dtype), hidden, grid)

    def _add_tokens(self, x: Array, mask: Array | None) -> Array:
        """(B, N, D) patches -> (B, 1+N, D): mask token in, [CLS] in front, positions.

        The mask token replaces a patch before its position is added.
        """
        batch, patches, dim = x.shape
        init = partitioned(init_normal, None, None, "embed")
        if self.mask_token:
            token = self.param("mask_token", init, (1, 1, dim))
        if mask is not None:
            self._check_mask(mask, (batch, patches))
            x = jnp.where(mask[..., None], token, x)
        cls = self.param("cls_token", init, (1, 1, dim))
        x = jnp.concatenate([jnp.broadcast_to(cls, (batch, 1, dim)), x], axis=1)
        if self.abs_pos_embed:
            x = x + self.param("pos_embed", init, (1, 1 + patches, dim))
        return x

    def _blocks(self, train: bool) -> nn.Module:
        block = nn.remat(Block, prevent_cse=False) if self.remat else Block
        stack = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True, "drop_path": True},
            in_axes=(0, nn.broadcast),
            length=self.depth,
            unroll=self.unroll,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        return stack(
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            layer_scale=self.layer_scale,
            norm_eps=self.norm_eps,
            grid=self.grid if self.rel_pos_bias == "per_block" else None,
            drops=train and self.drop_path > 0,
            tapped=bool(self.taps),
            dtype=self.dtype,
            name="blocks",
        )

    def _layers(self) -> tuple[Array, Array]:
        """(L,) numbers of the blocks from 1, and (L,) drop-path rates."""
        rates = jnp.linspace(0.0, self.drop_path, self.depth)
        return jnp.arange(1.0, self.depth + 1), rates

    def _check_settings(self) -> None:
        if self.dim % self.heads:
            raise ValueError(f"dim={self.dim} is no multiple of heads={self.heads}")
        kinds = ("shared", "per_block", "none")
        if self.rel_pos_bias not in kinds:
            raise ValueError(f"rel_pos_bias={self.rel_pos_bias!r} is none of {kinds}")
        for tap in self.taps:
            if not 0 <= tap < self.depth:
                raise ValueError(
                    f"no block {tap} to tap: blocks are 0..{self.depth - 1}"
                )

    def _check_grid(self, grid: tuple[int, int]) -> None:
        tables = self.abs_pos_embed or self.rel_pos_bias != "none"
        if tables and grid != tuple(self.grid):
            size = tuple(side * self.patch_size for side in self.grid)
            raise ValueError(
                f"image has {grid[0]}x{grid[1]} patches, but the position tables are "
                f"for {self.grid[0]}x{self.grid[1]}; give images of {size[0]}x{size[1]}"
                f" pixels or set grid={grid}"
            )

    def _check_mask(self, mask: Array, shape: tuple[int, int]) -> None:
        if not self.mask_token:
            raise ValueError("a mask needs an Encoder with mask_token=True")
        if mask.shape != shape or mask.dtype != jax.dtypes.canonicalize_dtype(bool):
            raise ValueError(
                f"mask is {mask.dtype}{mask.shape}; it must be bool{shape}: one flag "
                f"for each patch"
            )
