"""The two predictions of BEiT v2, which make [CLS] gather what an image is about."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from beit_jax.models import lean
from beit_jax.models.features import Features, Stage
from beit_jax.models.inits import torch_kernel
from beit_jax.models.layers import LayerNorm, Linear
from beit_jax.models.stack import stack
from beit_jax.ranges import Length, Part, Positive
from beit_jax.sharding import constrain

Array = jax.Array


class Predictions(NamedTuple):
    """(B, K, outputs) float32 each."""

    last: Array
    early: Array


class AggregationHead(nn.Module):
    """Predicts twice: from the last features, and from [CLS] with early patches.

    The second, "patch aggregation" (BEiT v2, arXiv:2208.06366, section 2.3), sees the
    last block's [CLS] beside an earlier block's patches through a few blocks of its
    own: what those patches cannot tell, [CLS] has to.

    Attributes:
      early: how many blocks of the encoder those patches have passed; 9 of 12 and 21 of
        24 as published.
      layers: blocks of the head's own, whose shape is the encoder's.
      shared: both predictions have the encoder's last norm and `lm_head` in common;
        else the second has its own, `cls_pt_norm` and `cls_pt_lm_head`.
    """

    outputs: Length
    blocks: Mapping[str, Any]  # settings of the encoder's
    encoder_depth: Length
    encoder_drop_path: Part
    early: Length = 9
    layers: Length = 2
    shared: bool = True
    norm_eps: Positive = 1e-6
    dtype: jnp.dtype = jnp.float32

    @property
    def taps(self) -> tuple[int, int]:
        """The encoder's blocks whose outputs it needs, counted from 0.

        Raises:
          ValueError: the encoder has fewer.
        """
        if self.early > self.encoder_depth:
            raise ValueError(
                f"config.task.head.early={self.early}, but the encoder has "
                f"{self.encoder_depth} blocks"
            )
        return self.early - 1, self.encoder_depth - 1

    @nn.compact
    def __call__(self, features: Features, *, train: bool = False) -> Predictions:
        """K patches, predicted from each of the two."""
        predict = self._linear("lm_head")
        last = predict(features.last.patches)
        x = self._aggregated(features, train)
        if self.shared:
            scale, bias = features.norm["scale"], features.norm["bias"]
            x = lean.layer_norm(x, scale, bias, self.norm_eps, jnp.float32)
        else:
            x = LayerNorm(self.norm_eps, name="cls_pt_norm")(x)
            predict = self._linear("cls_pt_lm_head")
        both = last, predict(x.astype(self.dtype))
        return Predictions(*(constrain(y, "batch", None, "vocab") for y in both))

    def _aggregated(self, features: Features, train: bool) -> Array:
        """(B, K, D) float32, raw, from [CLS] and the early patches."""
        early, last = features.taps
        x = jnp.concatenate([last.cls[:, None], early.patches], axis=1)
        numbers = self.early + jnp.arange(1.0, self.layers + 1)
        rates = self._rates()
        blocks = stack(self.layers, self.layers)(
            **self.blocks,
            seen=early.grid,
            drops=train and self.encoder_drop_path > 0,
            kernel_init=torch_kernel,
            name="cls_pt_layers",
        )
        x, _ = blocks(x, (numbers, rates), features.bias)
        patches = Stage(x[:, 1:], None, early.grid)
        return features.replace(last=patches).at(features.index).last.patches

    def _rates(self) -> Array:
        """Of drop path: as if its blocks followed the encoder's early ones."""
        blocks = max(self.encoder_depth, self.early + self.layers)
        rates = jnp.linspace(0.0, self.encoder_drop_path, blocks)
        return rates[self.early : self.early + self.layers]

    def _linear(self, name: str) -> Linear:
        return Linear(self.outputs, ("embed", "vocab"), self.dtype, name=name)
