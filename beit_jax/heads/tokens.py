"""The prediction layer of masked image modelling."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from beit_jax.models.features import Features
from beit_jax.models.layers import Linear
from beit_jax.ranges import Length
from beit_jax.sharding import constrain

Array = jax.Array


class TokenHead(nn.Module):
    """`lm_head`: one linear layer from a patch's features to what it must predict."""

    outputs: Length
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: Features, *, train: bool = False) -> Array:
        """K patches -> (B, K, outputs) float32."""
        axes = ("embed", "vocab")
        x = Linear(self.outputs, axes, self.dtype, name="lm_head")(
            features.last.patches
        )
        return constrain(x, "batch", None, "vocab")
