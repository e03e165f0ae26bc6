"""What heads of segmentation have in common, and the smallest of them."""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from beit_jax.heads.convolutions import Classify, ConvNorm
from beit_jax.models.features import Features
from beit_jax.models.layers import LayerNorm
from beit_jax.ranges import Length, Positive

Array = jax.Array


@flax.struct.dataclass
class Maps:
    """What a head makes of a batch, on grids of its own.

    Attributes:
      logits: (B, h, w, C) float32.
      auxiliary: further logits, (B, h', w', C) float32 each, which only training sees.
    """

    logits: Array
    auxiliary: tuple[Array, ...] = ()


def pictures(features: Features) -> list[Array]:
    """The taps, or without any the last features, as (B, h, w, D) float32."""
    stages = features.taps or (features.last,)
    return [
        stage.patches.reshape(len(stage.patches), *stage.grid, -1).astype(jnp.float32)
        for stage in stages
    ]


def four(features: Features) -> list[Array]:
    """As `pictures`, of four taps; the last features four times where there are none.

    Raises:
      ValueError: another number of taps.
    """
    found = pictures(features)
    found = found if features.taps else 4 * found
    if len(found) != 4:
        raise ValueError(f"this head sees 4 taps, not {len(found)}: set task.taps")
    return found


class FCN(nn.Module):
    """mmseg's `FCNHead`: `convs` 3x3 convolutions, then the classes."""

    classes: int
    channels: int
    convs: int = 1
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        """(B, h, w, D) -> (B, h, w, classes) float32."""
        for i in range(self.convs):
            conv = ConvNorm(self.channels, dtype=self.dtype, name=f"convs_{i}")
            x = conv(x, train=train)
        last = Classify(self.classes, self.dropout, self.dtype, name="conv_seg")
        return last(x, train=train)


class LinearMaps(nn.Module):
    """A linear layer from each patch to the classes, behind a norm."""

    classes: Length
    norm_eps: Positive = 1e-6
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: Features, *, train: bool = False) -> Maps:
        """The last tap -> logits on the grid of the patches."""
        x = LayerNorm(self.norm_eps, name="norm")(pictures(features)[-1])
        return Maps(Classify(self.classes, dtype=self.dtype, name="decode_head")(x))
