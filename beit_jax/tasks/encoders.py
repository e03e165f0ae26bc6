"""The encoder that a config describes, with a head, and what it tells of images."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from beit_jax import lookup
from beit_jax.heads import HEADS, network
from beit_jax.heads.network import Network
from beit_jax.models import backbones
from beit_jax.models.patches import Grid
from beit_jax.models.pixels import PixelSpace
from beit_jax.models.vit import Encoder
from beit_jax.tasks import base
from beit_jax.tasks.base import Array, Tree

# What stands for an image: [CLS], the mean of the patches, or one after the other.
FEATURES = ("cls", "mean", "concat")
OUTPUTS = ("features", "attention")  # what an encoder alone tells of images
DROPOUT = 0x64726F70  # folded into a step's key for the dropout of heads


def build(
    config: ConfigDict, **given: Any
) -> tuple[Encoder, tuple[int, int], PixelSpace]:
    """That of `config.model`, see `backbones.build`; products are of `config.dtype`."""
    return backbones.build(config.model, jnp.dtype(config.dtype), **given)


def with_head(encoder: nn.Module, head: Mapping[str, Any], **given: Any) -> Network:
    """The network of an encoder and the head that a config names.

    Args:
      head: name and settings.
      given: what the task decides, passed as far as the head takes it.

    Raises:
      ValueError: no such head, or settings that do not fit.
    """
    given |= {"norm_eps": encoder.norm_eps, "dtype": encoder.dtype}
    if isinstance(encoder, Encoder):  # for heads that go on with blocks like its own
        given |= {"encoder_depth": encoder.depth}
        given |= {"encoder_drop_path": encoder.drop_path}
        given |= {"blocks": encoder.block_settings()}
    made = lookup.build(HEADS, head, "beit_jax.heads", **given)
    if taps := getattr(made, "taps", ()):
        encoder = encoder.clone(taps=taps)
    return Network(encoder, made)


def block_features(encoder: Encoder, params: Tree, image: Array, kind: str) -> Array:
    """What each block makes of whole images; the official linear probe uses "concat".

    Args:
      params: the encoder's own.
      image: (B, H, W, 3) float, already normalised.
      kind: one of FEATURES.

    Returns:
      (L, B, F) float32 from the blocks' raw outputs, F = 2D for "concat", D else.
    """
    if kind not in FEATURES:
        raise ValueError(f"features {kind!r} are none of {FEATURES}")
    every = encoder.clone(taps=tuple(range(encoder.depth)))
    taps = every.apply({"params": params}, image).taps
    cls = jnp.stack([stage.cls for stage in taps])
    mean = jnp.stack([stage.patches.mean(axis=1) for stage in taps])
    return {"cls": cls, "mean": mean, "concat": jnp.concatenate([cls, mean], -1)}[kind]


def outputs(
    encoder: Encoder,
    params: Tree,
    image: Array,
    what: str,
    patch: Grid | None = None,
) -> dict[str, Array]:
    """One of OUTPUTS of whole images; arguments as of `block_features`.

    "features": cls and the mean of the patches, (B, L, D) float32, of every block.
    "attention": see `attention_maps`, which `patch` is for.
    """
    if what == "attention":
        return attention_maps(encoder, params, image, patch)
    both = block_features(encoder, params, image, "concat").swapaxes(0, 1)
    cls, mean = jnp.split(both, 2, axis=-1)
    return {"cls": cls, "mean": mean}


def attention_maps(
    encoder: Encoder, params: Tree, image: Array, patch: Grid | None = None
) -> dict[str, Array]:
    """How much [CLS], and perhaps one patch, looks at each patch: "cls", "patch".

    Args:
      patch: its (row, column).

    Returns:
      (B, L, A, h, w) float32 each, by block and head; what [CLS] is given is left out.

    Raises:
      ValueError: a patch outside of the grid.
    """
    queries = {"cls": 0}
    if patch is not None:
        (row, column), (height, width) = patch, encoder.grid
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(
                f"no patch in row {row}, column {column}: there are {height}x{width}, "
                "counted from 0"
            )
        queries["patch"] = 1 + row * width + column
    attending = encoder.clone(attends=tuple(queries.values()))
    weights = attending.apply({"params": params}, image).attention[..., 1:]
    maps = weights.reshape(*weights.shape[:-1], *encoder.grid).swapaxes(0, 1)
    return {name: maps[:, :, :, number] for number, name in enumerate(queries)}


class EncoderTask(base.Defaults):
    """What tasks share that train a backbone with a head: `network`."""

    network: Network

    @property
    def encoder(self) -> nn.Module:
        return self.network.encoder

    def init(self, rng: Array, batch: base.Batch) -> Tree:
        image = self._space.to_float(batch["image"])
        made = dict(network.start(self.network, rng, image))
        return {"params": made.pop("params"), "model_state": made}

    def adapt(self, params: Tree, model: Mapping[str, Any]) -> Tree:
        if "encoder" not in params:
            return params
        return params | {"encoder": self.encoder.adapt(params["encoder"], model)}

    def layers(self, params: Tree) -> Tree:
        """The head's are above all of the encoder's."""
        encoder = self.encoder.layers(params["encoder"])
        blocks = [layer for layer in jax.tree.leaves(encoder) if layer.ndim]
        top = np.array(1 + max(layer.max() for layer in blocks))

        def number(path, leaf):
            # What is stacked is of one layer all the same.
            if path[0].key.endswith(("blocks", "layers")):
                return np.full((len(leaf), *[1] * (leaf.ndim - 1)), top)
            return top

        head = jax.tree_util.tree_map_with_path(number, params)
        return head | {"encoder": encoder}

    def train_loss(
        self, params: Tree, batch: base.Batch, ctx: base.Context
    ) -> tuple[Array, base.Aux]:
        sums, model_state = self._sums(params, batch, ctx)
        loss, weight = sums["loss"]
        return loss / jnp.maximum(weight, 1e-9), base.Aux(sums, model_state)

    def _sums(
        self, params: Tree, batch: base.Batch, ctx: base.Context
    ) -> tuple[base.Sums, Tree]:
        """What to log of a batch, "loss" among it, and other collections after it."""
        raise NotImplementedError

    def _apply(
        self,
        params: Tree,
        ctx: base.Context,
        *args: Array,
        train: bool,
        **given: Array,
    ) -> tuple[Array, Tree]:
        """What the network makes of images, and its other collections after that."""
        variables = {"params": params, **ctx.model_state}
        rngs = None
        if train:
            dropout = jax.random.fold_in(ctx.rng, DROPOUT)
            rngs = {"drop_path": ctx.rng, "dropout": dropout}
        return network.apply(self.network, variables, *args, rngs=rngs, **given)
