"""The BEiT encoder: a vision transformer over patches, some of them hidden."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from beit_jax.lookup import lookup
from beit_jax.models import adapt, positions
from beit_jax.models.features import Features, Stage
from beit_jax.models.layers import (
    Array,
    Block,
    LayerNorm,
    PatchEmbed,
    RelPosBias,
    cut_normal,
    plain_normal,
    stacked,
)
from beit_jax.models.patches import Grid
from beit_jax.ranges import Length, Part, Positive, Weight
from beit_jax.sharding import constrain, partitioned

Tree = Any

VARIANTS = {
    "tiny": {"dim": 192, "depth": 12, "heads": 3},
    "small": {"dim": 384, "depth": 12, "heads": 6},
    "base": {"dim": 768, "depth": 12, "heads": 12},
    "large": {"dim": 1024, "depth": 24, "heads": 16},
}
# What of each block is saved for the backward pass, which computes all else again.
REMAT = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,  # but the block's input
}
FEW = 6  # blocks that unroll="auto" writes out
# Settings that are one word of these.
CHOICES = {
    "abs_pos_embed": ("none", "learned", "sincos"),
    "rel_pos_bias": ("none", "shared", "per_block"),
    "init_as": ("pretrain", "finetune"),
    "remat": ("none", *REMAT),
    "attention": ("plain", "fused"),
}


def released_layer_scale(depth: int) -> float:
    """How gammas start in the released networks: Large has 24 blocks, others 12."""
    return 0.1 if depth <= 12 else 1e-5


def _released(depth: int, pretraining: bool) -> dict[str, Any]:
    """The network of the released weights, made by the official scripts' defaults."""
    return {
        "abs_pos_embed": "none",
        "rel_pos_bias": "shared" if pretraining else "per_block",
        "layer_scale": released_layer_scale(depth),
    }


def _paper_plain(depth: int, pretraining: bool) -> dict[str, Any]:
    """The plain ViT of BEiT's ImageNet-1k numbers (arXiv:2106.08254)."""
    return {"abs_pos_embed": "learned", "rel_pos_bias": "none", "layer_scale": 0.0}


# Two networks go by the name of BEiT-B.
PRESETS = {"released": _released, "paper_plain": _paper_plain}
# Parameters below the first block.
EMBEDDINGS = frozenset(["cls_token", "mask_token", "pos_embed", "patch_embed"])


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
        "finetune" not, with PyTorch's own start of the patch embedding.
      remat: what the backward pass computes again of each block, to save memory:
        nothing ("none"), all but its products with weights ("dots"), all ("full").
      unroll: blocks per iteration of the loop over blocks; more compile slower. "auto":
        see `unrolled`.
      attention: "plain" or "fused", in one kernel of cuDNN's on NVIDIA's cards in
        bfloat16, which rounds the position bias, too.
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
        torch_init = self.init_as == "finetune"
        x = PatchEmbed(
            self.dim, self.patch_size, self.dtype, torch_init, name="patch_embed"
        )(image)
        grid = x.shape[1:3]
        x = self._add_tokens(x.reshape(len(x), -1, self.dim), mask)
        x = self._add_positions(x, grid)
        if visible is not None:
            self._check_visible()
            x = Stage(x[:, 1:], x[:, 0], grid).at(visible).tokens
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

        def stage(x: Array) -> Stage:
            return Stage(x[:, 1:], x[:, 0], grid)

        taps = tuple(stage(outputs[block]) for block in self.taps)
        return Features(stage(x.astype(self.dtype)), taps, bias, attention, norm)

    @staticmethod
    def settings(model: Mapping[str, Any], pretraining: bool) -> dict[str, Any]:
        """A section `model`, the settings of its variant and its preset filled in.

        Raises:
          ValueError: no such variant or preset.
        """
        filled = {"init_as": "pretrain" if pretraining else "finetune", **model}
        if variant := filled.pop("variant", ""):
            filled = lookup(VARIANTS, variant, "config.model.variant") | filled
        if preset := filled.pop("preset", ""):
            make = lookup(PRESETS, preset, "config.model.preset")
            filled = make(filled.get("depth", 12), pretraining) | filled
        return filled

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
        init = partitioned(self._normal(), None, None, "embed")
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
            init = partitioned(self._normal(), None, None, "embed")
            shape = (1, positions.embedding_rows(self.grid), self.dim)
            table = self.param("pos_embed", init, shape)
        if grid != tuple(self.grid):
            table = positions.resize_embedding(table, self.grid, grid)
        return x + table

    def _normal(self) -> nn.initializers.Initializer:
        return plain_normal if self.init_as == "finetune" else cut_normal

    def _blocks(self, grid: Grid, train: bool) -> nn.Module:
        block = Block
        if self.remat != "none":
            block = nn.remat(Block, prevent_cse=False, policy=REMAT[self.remat])
        return stacked(block, self.depth, self.unrolled())(
            **self.block_settings(),
            seen=grid,
            drops=train and self.drop_path > 0,
            tapped=bool(self.taps),
            attends=self.attends,
            kernel_init=self._normal(),
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
            "dtype": self.dtype,
        }

    def unrolled(self) -> int:
        """Blocks per iteration of the loop: `unroll`, or what measures best.

        A loop fills with zeros, and copies, what it keeps for the backward pass. Few
        blocks are written out instead: faster, for seconds of compiling. With `remat`
        they are not, for without a loop XLA keeps what it should compute again.
        """
        if self.unroll != "auto":
            return self.unroll
        return self.depth if self.depth <= FEW and self.remat == "none" else 1

    def _layers(self) -> tuple[Array, Array]:
        """(L,) numbers of the blocks from 1, and (L,) drop-path rates."""
        rates = jnp.linspace(0.0, self.drop_path, self.depth)
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
