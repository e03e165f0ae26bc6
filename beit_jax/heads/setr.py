"""The decoders of SETR (arXiv:2012.15840), which see the grid of the patches."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from beit_jax.heads.convolutions import Classify, ConvNorm, ConvTranspose
from beit_jax.heads.segmentation import FCN, Maps, four, pictures
from beit_jax.models.batch_norm import BatchNorm
from beit_jax.models.features import Features
from beit_jax.models.layers import LayerNorm
from beit_jax.models.sampling import bilinear
from beit_jax.ranges import Count, Length, Positive

Array = jax.Array


class PUP(nn.Module):
    """SETR-PUP: convolutions in turn with upsampling, four times; BEiT's own tables.

    All taps but the last one have an auxiliary head.

    Attributes:
      channels: of each convolution.
      convs: how many convolutions.
      scale: how much finer the grid is after each.
      size: pixels along a side of their kernels.
      auxiliary: convolutions of an auxiliary head, upsampled fourfold each; 0: none.
    """

    classes: Length
    channels: Length = 256
    convs: Length = 4
    scale: Length = 2
    size: Length = 3
    auxiliary: Count = 2
    norm_eps: Positive = 1e-6
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: Features, *, train: bool = False) -> Maps:
        """Taps -> logits, of `setr_pup` on the grid of the pixels."""
        *others, last = pictures(features)

        def up(x: Array, convs: int, scale: int, name: str) -> Array:
            settings = (self.classes, self.channels, convs, scale, self.size)
            head = Up(*settings, self.norm_eps, self.dtype, name=name)
            return head(x, train=train)

        logits = up(last, self.convs, self.scale, "decode_head")
        if not self.auxiliary or not (train or self.is_initializing()):
            return Maps(logits)
        names = (f"auxiliary_head_{i}" for i in range(len(others)))
        auxiliary = [
            up(x, self.auxiliary, 4, name)
            for x, name in zip(others, names, strict=True)
        ]
        return Maps(logits, tuple(auxiliary))


class Naive(PUP):
    """SETR-naive: one 1x1 convolution, upsampled fourfold.

    Attributes:
      channels, convs, scale, size, auxiliary: as of `setr_pup`.
    """

    convs: Length = 1
    scale: Length = 4
    size: Length = 1
    auxiliary: Count = 1


class Up(nn.Module):
    """mmseg's `SETRUPHead`."""

    classes: int
    channels: int
    convs: int
    scale: int
    size: int
    norm_eps: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        """(B, h, w, D) -> (B, h', w', classes) float32."""
        x = LayerNorm(self.norm_eps, name="norm")(x)
        for i in range(self.convs):
            form = (self.channels, self.size, self.dtype)
            x = ConvNorm(*form, name=f"up_convs_{i}")(x, train=train)
            x = bilinear(x, tuple(self.scale * side for side in x.shape[1:3]))
        return Classify(self.classes, dtype=self.dtype, name="conv_seg")(x)


class Deconvolution(nn.Module):
    """Transposed convolutions, each of which doubles the grid.

    Attributes:
      channels: of each.
      steps: how many; 4 come to the pixels of patches of 16.
    """

    classes: Length
    channels: Length = 256
    steps: Length = 4
    norm_eps: Positive = 1e-6
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: Features, *, train: bool = False) -> Maps:
        """The last tap -> logits on a grid 2**steps times as fine."""
        x = LayerNorm(self.norm_eps, name="norm")(pictures(features)[-1])
        for i in range(self.steps):
            x = ConvTranspose(self.channels, self.dtype, name=f"up_{i}")(x)
            x = nn.relu(BatchNorm(name=f"bn_{i}")(x, train=train))
        last = Classify(self.classes, dtype=self.dtype, name="decode_head")
        return Maps(last(x))


class MLA(nn.Module):
    """SETR-MLA: the taps are added up from the deepest on, and seen side by side.

    Attributes:
      channels: of the sums.
      mla_channels: of each map that the logits are made of.
      auxiliary: give each sum a linear auxiliary head.
    """

    classes: Length
    channels: Length = 256
    mla_channels: Length = 128
    auxiliary: bool = True
    norm_eps: Positive = 1e-6
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: Features, *, train: bool = False) -> Maps:
        """Four taps -> logits on a grid four times as fine."""
        neck = Sums(self.channels, self.norm_eps, self.dtype, name="neck")
        maps = neck(four(features), train=train)
        decode = Beside(self.classes, self.mla_channels, self.dtype, name="decode_head")
        logits = decode(maps, train=train)
        if not self.auxiliary or not (train or self.is_initializing()):
            return Maps(logits)
        auxiliary = [
            FCN(self.classes, 0, 0, dtype=self.dtype, name=f"auxiliary_head_{i}")(x)
            for i, x in enumerate(maps)
        ]
        return Maps(logits, tuple(auxiliary))


class Sums(nn.Module):
    """mmseg's `MLANeck`."""

    channels: int
    norm_eps: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: list[Array], *, train: bool = False) -> list[Array]:
        """(B, h, w, D) each -> (B, h, w, channels) each, the deepest first."""
        form = {"dtype": self.dtype}
        parts = []
        for i, x in enumerate(maps):
            x = LayerNorm(self.norm_eps, name=f"norm_{i}")(x)
            conv = ConvNorm(self.channels, 1, name=f"channel_proj_{i}", **form)
            parts.append(conv(x, train=train))
        total, outs = 0.0, []
        for i, x in enumerate(reversed(parts)):
            total += x
            conv = ConvNorm(self.channels, name=f"feat_extract_{i}", **form)
            outs.append(conv(total, train=train))
        return outs


class Beside(nn.Module):
    """mmseg's `SETRMLAHead`."""

    classes: int
    channels: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: list[Array], *, train: bool = False) -> Array:
        """(B, h, w, D) each -> (B, 4h, 4w, classes) float32."""
        outs = []
        for i, x in enumerate(maps):
            for j in range(2):
                conv = ConvNorm(self.channels, dtype=self.dtype, name=f"up_{i}_{j}")
                x = conv(x, train=train)
            outs.append(bilinear(x, tuple(4 * side for side in x.shape[1:3])))
        last = Classify(self.classes, dtype=self.dtype, name="conv_seg")
        return last(jnp.concatenate(outs, axis=-1))
