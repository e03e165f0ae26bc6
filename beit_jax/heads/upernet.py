"""UPerNet (arXiv:1807.10221) on a plain ViT, as BEiT's code for ADE20K has it."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from beit_jax.heads.convolutions import (
    Classify,
    ConvNorm,
    ConvTranspose,
    average_pool,
    max_pool,
)
from beit_jax.heads.segmentation import FCN, Maps, four
from beit_jax.models.batch_norm import BatchNorm
from beit_jax.models.features import Features
from beit_jax.models.sampling import bilinear
from beit_jax.ranges import Count, Length, Part

Array = jax.Array


class UPerNet(nn.Module):
    """A neck that makes four taps a pyramid, mmseg's `UPerHead`, and an `FCNHead`.

    Attributes:
      channels: 768 for Base, 1024 for Large; mmseg's own is 512.
      auxiliary: channels of the auxiliary head, which sees the third map; 0: none.
      pools: bins a side of the pyramid pooling.
      dropout: share of the features that are dropped before the classes.
    """

    classes: Length
    channels: Length = 512
    auxiliary: Count = 256
    pools: tuple[Length, ...] = (1, 2, 3, 6)
    dropout: Part = 0.1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: Features, *, train: bool = False) -> Maps:
        """Four taps -> logits on a grid four times as fine as that of the patches."""
        levels = Neck(self.dtype, name="neck")(four(features), train=train)
        last = (self.classes, self.dropout, self.dtype)
        decode = Decoder(self.channels, self.pools, *last, name="decode_head")
        logits = decode(levels, train=train)
        if not self.auxiliary or not (train or self.is_initializing()):
            return Maps(logits)
        (classes, *rest), channels = last, self.auxiliary
        auxiliary = FCN(classes, channels, 1, *rest, name="auxiliary_head")
        return Maps(logits, (auxiliary(levels[2], train=train),))


class Neck(nn.Module):
    """Maps of strides 4, 8, 16 and 32 of four of stride 16: fpn1 .. fpn4."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: list[Array], *, train: bool = False) -> list[Array]:
        """(B, h, w, D) each -> (B, 4h, 4w, D), (B, 2h, 2w, D), the same, and half."""
        form = (maps[0].shape[-1], self.dtype)
        x = ConvTranspose(*form, name="fpn1_up1")(maps[0])
        x = BatchNorm(name="fpn1_bn")(x, train=train)
        x = nn.gelu(x, approximate=False)
        x = ConvTranspose(*form, name="fpn1_up2")(x)
        second = ConvTranspose(*form, name="fpn2_up")(maps[1])
        return [x, second, maps[2], max_pool(maps[3])]


class Decoder(nn.Module):
    """mmseg's `UPerHead`."""

    channels: int
    pools: tuple[int, ...]
    classes: int
    dropout: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, levels: list[Array], *, train: bool = False) -> Array:
        """Maps, the finest first -> (B, h, w, classes) float32 on the finest grid."""

        def conv(x: Array, size: int, name: str) -> Array:
            return ConvNorm(self.channels, size, self.dtype, name=name)(x, train=train)

        *finer, top = levels
        pooled = [
            bilinear(
                conv(average_pool(top, bins), 1, f"psp_modules_{i}"), top.shape[1:3]
            )
            for i, bins in enumerate(self.pools)
        ]
        context = conv(jnp.concatenate([top, *pooled], -1), 3, "bottleneck")
        ways = [conv(x, 1, f"lateral_convs_{i}") for i, x in enumerate(finer)]
        ways.append(context)
        for i in reversed(range(len(finer))):
            ways[i] += bilinear(ways[i + 1], ways[i].shape[1:3])
        outs = [conv(x, 3, f"fpn_convs_{i}") for i, x in enumerate(ways[:-1])]
        outs.append(context)
        outs = [bilinear(x, outs[0].shape[1:3]) for x in outs]
        x = conv(jnp.concatenate(outs, -1), 3, "fpn_bottleneck")
        last = Classify(self.classes, self.dropout, self.dtype, name="conv_seg")
        return last(x, train=train)
