"""The classification head of BEiT."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from beit_jax.models.features import Features
from beit_jax.models.layers import LayerNorm, Linear, plain_normal
from beit_jax.ranges import Length, Positive, Weight

Array = jax.Array

POOLS = ("mean", "cls")


class LinearHead(nn.Module):
    """Class logits from the mean patch (through `fc_norm`) or from [CLS].

    With "mean" the encoder is to have no final norm, with "cls" it is to have one, as
    in `VisionTransformer` of beit/modeling_finetune.py.

    Attributes:
      classes: C.
      pool: "mean" or "cls".
      init_scale: factor on the weights' initial values, a normal of 0.02.
    """

    classes: Length
    pool: str = "mean"
    init_scale: Weight = 0.001
    norm_eps: Positive = 1e-6
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: Features, *, train: bool = False) -> Array:
        """-> (B, C) float32 logits."""
        if self.pool == "mean":
            mean = features.last.patches.astype(jnp.float32).mean(axis=1)
            x = LayerNorm(self.norm_eps, name="fc_norm")(mean)
        elif features.last.cls is None:
            raise ValueError("pool='cls' needs a backbone with [CLS]; take 'mean'")
        else:
            x = features.last.cls
        axes = ("embed", None)  # classes are few, and of any number
        head = Linear(
            self.classes, axes, self.dtype, kernel_init=plain_normal, name="head"
        )
        return head(x, self.init_scale)
