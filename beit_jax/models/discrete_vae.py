"""The "customized" discrete VAE that BEiT's code offers beside DALL-E's."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from beit_jax.models.gumbel import CodeProjection, GumbelTokenizer
from beit_jax.models.patches import halvings
from beit_jax.models.vqvae_layers import ConvTranspose
from beit_jax.ranges import Count, Length

Array = jax.Array


class ResBlock(nn.Module):
    """`x + conv1x1(relu(conv3x3(relu(conv3x3(x)))))`."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        dim = x.shape[-1]
        y = nn.relu(nn.Conv(dim, (3, 3), dtype=self.dtype, name="conv_1")(x))
        y = nn.relu(nn.Conv(dim, (3, 3), dtype=self.dtype, name="conv_2")(y))
        return x + nn.Dense(dim, dtype=self.dtype, name="conv_3")(y)


class Encoder(nn.Module):
    """Image -> logits: every stage halves the sides by a convolution of stride 2."""

    stages: int
    vocab: int
    hidden: int
    res_blocks: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(B, H, W, 3) float -> (B, h, w, V) float32."""
        for stage in range(1, self.stages + 1):
            settings = {"dtype": self.dtype, "name": f"down_{stage}"}
            down = nn.Conv(self.hidden, (4, 4), (2, 2), **settings)
            x = nn.relu(down(x))
            for i in range(1, self.res_blocks + 1):
                x = ResBlock(self.dtype, name=f"stage_{stage}_block_{i}")(x)
        return nn.Dense(self.vocab, name="output")(x.astype(jnp.float32))


class Decoder(nn.Module):
    """Codes -> image: every stage doubles the sides by a transposed convolution."""

    stages: int
    vocab: int
    code_dim: int
    hidden: int
    res_blocks: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, codes: Array) -> Array:
        """(B, h, w) int32 or (B, h, w, V) float32 -> (B, H, W, 3) float32."""
        size = (self.vocab, self.code_dim, nn.initializers.normal(1.0))
        x = CodeProjection(*size, use_bias=False, name="codebook")(codes)
        for stage in range(1, self.stages + 1):
            up = ConvTranspose(self.hidden, self.dtype, name=f"up_{stage}")
            x = nn.relu(up(x))
            for i in range(1, self.res_blocks + 1):
                x = ResBlock(self.dtype, name=f"stage_{stage}_block_{i}")(x)
        x = nn.Dense(3, dtype=self.dtype, name="output")(x)
        return x.astype(jnp.float32)


class DiscreteVAE(GumbelTokenizer):
    """Tokenizer of images and painter of tokens, both in pixel space "half".

    The default sizes are BEiT's. Weights start as Flax has it, codes from N(0, 1).

    Attributes:
      vocab: V, number of visual tokens.
      code_dim: features of a code.
      hidden: features of every convolution.
      patch_size: pixels along a side of what one token stands for; a power of two.
      res_blocks: after each halving, and after each doubling; BEiT's code has one.
      dtype: of the convolutions' operands, but for the one that makes logits;
        parameters, codes, logits and pixels are float32.
    """

    vocab: Length = 8192
    code_dim: Length = 512
    hidden: Length = 256
    patch_size: Length = 8
    res_blocks: Count = 1
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        size = (self.hidden, self.res_blocks, self.dtype)
        self.encoder = Encoder(halvings(self.patch_size), self.vocab, *size)
        self.decoder = Decoder(
            halvings(self.patch_size), self.vocab, self.code_dim, *size
        )

    def paint(self, codes: Array) -> tuple[Array, None]:
        return self.decoder(codes), None
