"""The BEiT encoder: a vision transformer over patches, some of them hidden."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from beit_jax.models import adapt, positions, presets
from beit_jax.models.features import Features, Stage
from beit_jax.models.inits import UNSCALED, xavier
from beit_jax.models.layers import (
    Array,
    LayerNorm,
    PatchEmbed,
    RelPosBias,
    cut_normal,
    plain_normal,
)
from beit_jax.models.patches import Grid
from beit_jax.models.products import product
from beit_jax.models.stack import REMAT, stack
from beit_jax.ranges import Count, Length, Part, Positive, Weight
from beit_jax.sharding import constrain, partitioned

Tree = Any

# Settings that are one word of these.
CHOICES = {
    "abs_pos_embed": ("none", "learned", "sincos"),
    "rel_pos_bias": ("none", "shared", "per_block"),
    "init_as": ("pretrain", "finetune", "mae"),
    "remat": ("none", *REMAT),
    "attention": ("plain", "fused"),
    "activation": ("gelu", "quick_gelu"),
}


# How kernels and how tokens start, by `init_as`.
INITS = {
    "pretrain": (cut_normal, cut_normal),
    "finetune": (plain_normal, plain_normal),
    "mae": (xavier, plain_normal),
}
# Parameters below the first block.
EMBEDDINGS = frozenset(
    ["cls_token", "mask_token", "pos_embed", "patch_embed", "norm_pre"]
)


class Encoder(nn.Module):
    """Image -> features of [CLS] and of every patch.

    Attributes:
      grid: (h, w) patches for which the position tables are made; images of another
        grid see them resized.
      dim: D, features of a token.
      depth: L, number of blocks.
      heads: A, of attention; they divide `dim`.
      patch_size: pixels along a side of a patch.
      mlp_ratio: features inside an MLP, as a multiple of `dim`.
      norm_eps: added to the variance in layer norms.
      abs_pos_embed: what is added to each position: "learned", "sincos" (fixed, as
        in MAE) or "none".
      rel_pos_bias: "shared" (one table for all blocks), "per_block" or "none".
      qkv_bias: queries and values have biases; keys never have.
      layer_scale: initial value of the residual branches' gammas; 0 = no gammas.
      drop_path: rate of the last block; the rates rise linearly from 0.
      mask_token: have the parameter that stands in for hidden patches.
      final_norm: normalise the tokens (a mean-pooling classifier norms after it).
      taps: blocks, counting from 0, whose raw outputs are returned.
      attends: tokens whose attention weights, as queries, are returned of all blocks
        as `attention`: 0 is [CLS].
      dtype: of the operands of matrix products and of the returned tokens.
      init_as: how weights start: normals of 0.02, for "pretrain" cut at one sigma, for
        "finetune" not, with PyTorch's own start of the patch embedding; for "mae" by
        Xavier's rule, and later blocks as the first.
      remat: what the backward pass computes again of each block, to save memory:
        nothing ("none"), all but its products with weights ("dots"), all ("full").
      unroll: blocks per iteration of the loop over blocks; more compile slower. "auto":
        what measures best.
      attention: "plain" or "fused", in one kernel of cuDNN's on NVIDIA's cards in
        bfloat16, which rounds the position bias, too.
      activation: of the MLPs: "gelu", or "quick_gelu" as in CLIP.
      pre_norm: normalise the tokens before the first block, too, as CLIP does.
      projection: features of a token after one linear layer behind the final norm, as
        CLIP has it; 0: there is none.
    """

    grid: Grid
    dim: Length
    depth: Length
    heads: Length
    patch_size: Length = 16
    mlp_ratio: Positive = 4.0
    abs_pos_embed: str = "none"
    rel_pos_bias: str = "shared"
    qkv_bias: bool = True
    layer_scale: Weight = 0.1
    drop_path: Part = 0.0
    norm_eps: Positive = 1e-6
    mask_token: bool = False
    final_norm: bool = True
    taps: tuple[int, ...] = ()
    attends: tuple[int, ...] = ()
    dtype: jnp.dtype = jnp.float32
    init_as: str = "pretrain"
    remat: str = "none"
    unroll: Length | str = "auto"
    attention: str = "plain"
    activation: str = "gelu"
    pre_norm: bool = False
    projection: Count = 0

    @nn.compact
    def __call__(
        self,
        image: Array,
        mask: Array | None = None,
        *,
        visible: Array | None = None,
        train: bool = False,
    ) -> Features:
        """Encodes images.

        Args:
          image: (B, H, W, 3) float, already normalised.
          mask: (B, N) bool, True where a patch is hidden, or None.
          visible: (B, K) int, the patches that are encoded at all, in that order; None:
            every patch. They keep their places, which relative positions cannot tell.
          train: apply drop-path, which draws from the rng collection "drop_path".

        Raises:
          ValueError: settings, image or mask that do not fit each other.
        """
        self._check_settings()
        x = PatchEmbed(
            self.dim,
            self.patch_size,
            self.dtype,
            torch_init=self.init_as != "pretrain",
            kernel_init=xavier if self.init_as == "mae" else None,
            name="patch_embed",
        )(image)
        grid = x.shape[1:3]
        x = self._add_tokens(x.reshape(len(x), -1, self.dim), mask)
        x = self._add_positions(x, grid)
        if visible is not None:
            self._check_visible()
            x = Stage(x[:, 1:], x[:, 0], grid).at(visible).tokens
        if self.pre_norm:
            x = LayerNorm(self.norm_eps, name="norm_pre")(x)
        bias = None
        if self.rel_pos_bias == "shared":
            bias = RelPosBias(self.grid, self.heads, name="rel_pos_bias")(grid)
        blocks = self._blocks(grid, train)
        x, (outputs, attention) = blocks(x, self._layers(), bias)
        x = constrain(x, "batch", None, None)
        norm = None
        if self.final_norm:
            layer = LayerNorm(self.norm_eps, name="norm")
            x = layer(x)
            norm = nn.unbox(layer.variables["params"])
        if self.projection:
            x = self._project(x)

        def stage(x: Array) -> Stage:
            return Stage(x[:, 1:], x[:, 0], grid, visible)

        taps = tuple(stage(outputs[block]) for block in self.taps)
        return Features(stage(x.astype(self.dtype)), taps, bias, attention, norm)

    @staticmethod
    def settings(model: Mapping[str, Any], pretraining: bool) -> dict[str, Any]:
        """See models/backbones.py and models/presets.py."""
        return presets.filled(model, pretraining)

    def layers(self, params: Tree) -> Tree:
        """See models/backbones.py; a table that all blocks share is above them."""
        stacked = np.arange(1, self.depth + 1)

        def number(path, leaf):
            if path[0].key == "blocks":
                return stacked.reshape(-1, *[1] * (leaf.ndim - 1))
            return np.array(0 if path[0].key in EMBEDDINGS else self.depth + 1)

        return jax.tree_util.tree_map_with_path(number, params)

    def adapt(self, params: Tree, model: Mapping[str, Any]) -> Tree:
        """Another run's encoder with position tables as this one has them.

        Args:
          model: the section `model` of the other run's config.

        Raises:
          ValueError: positions that cannot become what this encoder has.
        """
        return adapt.adapt(params, model, self)

    def _add_tokens(self, x: Array, mask: Array | None) -> Array:
        """(B, N, D) patches -> (B, 1+N, D): mask token in, [CLS] in front."""
        batch, patches, dim = x.shape
        init = partitioned(INITS[self.init_as][1], None, None, "embed")
        if self.mask_token:
            token = self.param("mask_token", init, (1, 1, dim))
        if mask is not None:
            self._check_mask(mask, (batch, patches))
            x = jnp.where(mask[..., None], token, x)
        cls = self.param("cls_token", init, (1, 1, dim))
        return jnp.concatenate([jnp.broadcast_to(cls, (batch, 1, dim)), x], axis=1)

    def _add_positions(self, x: Array, grid: Grid) -> Array:
        """(B, 1+N, D) -> the same; masked patches are told where they are, too."""
        if self.abs_pos_embed == "none":
            return x
        if self.abs_pos_embed == "sincos":
            table = positions.sincos(self.grid, self.dim)
        else:
            init = partitioned(INITS[self.init_as][1], None, None, "embed")
            shape = (1, positions.embedding_rows(self.grid), self.dim)
            table = self.param("pos_embed", init, shape)
        if grid != tuple(self.grid):
            table = positions.resize_embedding(table, self.grid, grid)
        return x + table

    def _project(self, x: Array) -> Array:
        """(B, T, D) -> (B, T, projection)."""
        init = partitioned(nn.initializers.normal(self.dim**-0.5), "embed", None)
        kernel = self.param("projection", init, (self.dim, self.projection))
        made = product("nd,do->no", x.reshape(-1, self.dim), kernel, self.dtype)
        return made.reshape(*x.shape[:2], self.projection)

    def _blocks(self, grid: Grid, train: bool) -> nn.Module:
        return stack(self.depth, self.unroll, self.remat)(
            **self.block_settings(),
            seen=grid,
            drops=train and self.drop_path > 0,
            tapped=bool(self.taps),
            attends=self.attends,
            kernel_init=INITS[self.init_as][0],
            name="blocks",
        )

    def block_settings(self) -> dict[str, Any]:
        """Of each block, and of those that a head may add to them."""
        return {
            "heads": self.heads,
            "mlp_ratio": self.mlp_ratio,
            "layer_scale": self.layer_scale,
            "norm_eps": self.norm_eps,
            "qkv_bias": self.qkv_bias,
            "grid": self.grid if self.rel_pos_bias == "per_block" else None,
            "fused": self.attention == "fused",
            "quick": self.activation == "quick_gelu",
            "dtype": self.dtype,
        }

    def _layers(self) -> tuple[Array, Array]:
        """(L,) numbers of the blocks from 1, and (L,) drop-path rates."""
        rates = jnp.linspace(0.0, self.drop_path, self.depth)
        if self.init_as == "mae":
            return jnp.full(self.depth, UNSCALED), rates
        return jnp.arange(1.0, self.depth + 1), rates

    def _check_settings(self) -> None:
        if self.dim % self.heads:
            raise ValueError(f"dim={self.dim} is no multiple of heads={self.heads}")
        if self.depth < 1 or not 0 <= self.drop_path < 1:
            raise ValueError(
                f"depth={self.depth} must be at least 1, drop_path={self.drop_path} in "
                "0 .. 1 without 1"
            )
        if isinstance(self.unroll, str) and self.unroll != "auto":
            raise ValueError(f"unroll={self.unroll!r} is neither 'auto' nor a number")
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name}={value!r} is none of {choices}")
        for tap in self.taps:
            if not 0 <= tap < self.depth:
                raise ValueError(
                    f"no block {tap} to tap: blocks are 0..{self.depth - 1}"
                )

    def _check_visible(self) -> None:
        if self.rel_pos_bias != "none":
            raise ValueError(
                f"visible patches need rel_pos_bias='none', not {self.rel_pos_bias!r}: "
                "offsets would differ from image to image"
            )

    def _check_mask(self, mask: Array, shape: tuple[int, int]) -> None:
        if not self.mask_token:
            raise ValueError("a mask needs an Encoder with mask_token=True")
        if mask.shape != shape or mask.dtype != jax.dtypes.canonicalize_dtype(bool):
            raise ValueError(
                f"mask is {mask.dtype}{mask.shape}; it must be bool{shape}: one flag "
                f"for each patch"
            )
