"""MAE's decoder: blocks that see what was encoded, and mask tokens in other places."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from beit_jax.models import positions
from beit_jax.models.features import Features
from beit_jax.models.inits import UNSCALED, xavier
from beit_jax.models.layers import LayerNorm, Linear, plain_normal
from beit_jax.models.stack import stack
from beit_jax.ranges import Length, Positive
from beit_jax.sharding import constrain, partitioned

Array = jax.Array

POSITIONS = ("sincos", "learned")


class Decoder(nn.Module):
    """A small transformer between the encoder and the prediction layer.

    With it the encoder sees patches only that are not hidden, a quarter in MAE
    (arXiv:2111.06377); where the others are, mask tokens stand here. Parameters have
    the names of the official models_mae.py.

    Attributes:
      dim: features of a token.
      depth: number of blocks.
      heads: of attention; they divide `dim`.
      pos_embed: what is added to each position: "sincos" (fixed) or "learned".
    """

    outputs: Length
    dim: Length = 512
    depth: Length = 8
    heads: Length = 16
    pos_embed: str = "sincos"
    norm_eps: Positive = 1e-6
    dtype: jnp.dtype = jnp.float32

    decodes = True  # what the encoder did not see

    @nn.compact
    def __call__(self, features: Features, *, train: bool = False) -> Array:
        """-> (B, K, outputs) float32 of the patches that are asked for."""
        self._check()
        form = {"dtype": self.dtype, "kernel_init": xavier}
        axes = ("embed", None)
        x = Linear(self.dim, axes, name="decoder_embed", **form)(features.tokens)
        x = self._with_mask_tokens(x, features) + self._positions(features.grid)
        blocks = stack(self.depth, "auto")(
            heads=self.heads,
            layer_scale=0.0,
            norm_eps=self.norm_eps,
            seen=features.grid,
            name="decoder_blocks",
            **form,
        )
        layers = jnp.full(self.depth, UNSCALED), jnp.zeros(self.depth)
        x, _ = blocks(x, layers, None)
        x = LayerNorm(self.norm_eps, name="decoder_norm")(x)[:, 1:]
        if features.index is not None:
            x = jnp.take_along_axis(x, features.index[..., None], axis=1)
        axes = ("embed", "vocab")
        x = Linear(self.outputs, axes, name="decoder_pred", **form)(x)
        return constrain(x, "batch", None, "vocab")

    def _with_mask_tokens(self, x: Array, features: Features) -> Array:
        """(B, 1+K, dim), [CLS] first -> (B, 1+N, dim), all in their places."""
        init = partitioned(plain_normal, None, None, "embed")
        token = self.param("mask_token", init, (1, 1, self.dim))
        if (places := features.last.places) is None:
            return x
        patches = features.grid[0] * features.grid[1]
        hidden = jnp.broadcast_to(token, (len(x), patches, self.dim))
        put = jax.vmap(lambda row, at, seen: row.at[at].set(seen))
        return jnp.concatenate([x[:, :1], put(hidden, places, x[:, 1:])], axis=1)

    def _positions(self, grid: tuple[int, int]) -> Array:
        if self.pos_embed == "sincos":
            return positions.sincos(grid, self.dim)
        init = partitioned(plain_normal, None, None, "embed")
        shape = (1, positions.embedding_rows(grid), self.dim)
        return self.param("decoder_pos_embed", init, shape)

    def _check(self) -> None:
        if self.dim % self.heads:
            raise ValueError(
                f"task.head.dim={self.dim} is no multiple of task.head.heads="
                f"{self.heads}"
            )
        if self.pos_embed not in POSITIONS:
            raise ValueError(
                f"task.head.pos_embed={self.pos_embed!r} is none of {POSITIONS}"
            )
