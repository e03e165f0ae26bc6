"""DALL-E's discrete VAE (arXiv:2102.12092), BEiT's tokenizer: images <-> tokens."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from beit_jax.models.gumbel import CodeProjection, GumbelTokenizer
from beit_jax.models.patches import halvings
from beit_jax.ranges import Length

Array = jax.Array

INIT = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


def conv(dim: int, size: int, dtype: jnp.dtype, name: str) -> nn.Module:
    """A `size` x `size` convolution; of single pixels it is a product, and faster."""
    if size == 1:
        return nn.Dense(dim, dtype=dtype, kernel_init=INIT, name=name)
    return nn.Conv(dim, (size, size), dtype=dtype, kernel_init=INIT, name=name)


def halve(x: Array) -> Array:
    """Max pooling of squares of four pixels.

    Equal pixels share the gradient (torch gives it to the first). In pairs, because the
    gradient of `nn.max_pool` takes several times as long on a CPU, and that of `x.max`
    looks for pixels equal to the maximum: where XLA computes x a second time, a little
    different, it finds none and gives NaN.
    """
    batch, height, width, dim = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, dim)
    x = jnp.maximum(x[:, :, 0], x[:, :, 1])
    return jnp.maximum(x[:, :, :, 0], x[:, :, :, 1])


def double(x: Array) -> Array:
    """Every pixel becomes a square of four."""
    return x.repeat(2, 1).repeat(2, 2)


class ResBlock(nn.Module):
    """`x + gain * four convolutions, each of relu`, three of them to dim / 4 features.

    The sum stays in float32: bfloat16 would lose most of what a small gain adds.
    """

    dim: int
    sizes: tuple[int, int, int, int]
    gain: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(B, H, W, C) float32 -> (B, H, W, dim) float32."""
        y = x
        for i, size in enumerate(self.sizes, 1):
            dim = self.dim if i == len(self.sizes) else self.dim // 4
            y = conv(dim, size, self.dtype, f"conv_{i}")(nn.relu(y))
        if x.shape[-1] != self.dim:
            x = conv(self.dim, 1, self.dtype, "id_path")(x)
        return x.astype(jnp.float32) + self.gain * y.astype(jnp.float32)


class Group(nn.Module):
    """The residual blocks of one width."""

    dim: int
    blocks: int
    sizes: tuple[int, int, int, int]
    gain: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(B, H, W, C) float32 -> (B, H, W, dim) float32."""
        block = (self.dim, self.sizes, self.gain, self.dtype)
        for i in range(1, self.blocks + 1):
            x = ResBlock(*block, name=f"block_{i}")(x)
        return x


class Encoder(nn.Module):
    """Image -> logits; each group of blocks has half the side and twice the width."""

    vocab: int
    n_hid: int
    groups: int
    blocks: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, image: Array) -> Array:
        """(B, H, W, 3) float -> (B, h, w, V) float32."""
        block = (self.blocks, (3, 3, 3, 1), (self.groups * self.blocks) ** -2)
        x = conv(self.n_hid, 7, self.dtype, "input")(image).astype(jnp.float32)
        for i in range(self.groups):
            x = halve(x) if i else x
            group = Group(self.n_hid << i, *block, self.dtype, name=f"group_{i + 1}")
            x = group(x)
        return conv(self.vocab, 1, jnp.float32, "output")(nn.relu(x))


class Decoder(nn.Module):
    """Codes -> stats; mirrors `Encoder`."""

    vocab: int
    n_hid: int
    n_init: int
    groups: int
    blocks: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, codes: Array) -> Array:
        """(B, h, w) int32 or (B, h, w, V) float32 -> (B, H, W, 6) float32."""
        block = (self.blocks, (1, 3, 3, 3), (self.groups * self.blocks) ** -2)
        x = CodeProjection(self.vocab, self.n_init, INIT, name="input")(codes)
        for i in range(self.groups):
            x = double(x) if i else x
            dim = self.n_hid << (self.groups - 1 - i)
            x = Group(dim, *block, self.dtype, name=f"group_{i + 1}")(x)
        return conv(6, 1, self.dtype, "output")(nn.relu(x)).astype(jnp.float32)


def logit_laplace_nll(stats: Array, image: Array) -> Array:
    """Negative log-density of every value of an image, in nats.

    Args:
      stats: (..., 6) float32: mu of the three channels, then their ln b.
      image: (..., 3) float32, strictly between 0 and 1: pixel space "dalle".

    The logit of a value has a Laplace distribution of location mu and scale b:
    p(x) = exp(-|logit x - mu| / b) / (2 b x (1 - x)) (DALL-E, appendix A.3).
    """
    mu, ln_b = jnp.split(stats, 2, -1)
    ln_x, ln_rest = jnp.log(image), jnp.log1p(-image)
    distance = jnp.abs(ln_x - ln_rest - mu)
    return ln_b + jnp.log(2.0) + ln_x + ln_rest + distance * jnp.exp(-ln_b)


class DVAE(GumbelTokenizer):
    """Tokenizer of images and painter of tokens, both in pixel space "dalle".

    With the default sizes, the networks that OpenAI released.

    Attributes:
      vocab: V, number of visual tokens.
      n_hid: features at full resolution; every halving doubles them.
      n_init: features that the decoder makes of a token.
      blocks_per_group: residual blocks at each resolution.
      patch_size: pixels along a side of what one token stands for; a power of two.
      dtype: of the convolutions' operands, but for those that make logits and take
        codes; parameters, residual sums, logits and stats are float32.
    """

    vocab: Length = 8192
    n_hid: Length = 256
    n_init: Length = 128
    blocks_per_group: Length = 2
    patch_size: Length = 8
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        if self.n_hid % 4:
            raise ValueError(
                f"n_hid={self.n_hid} is no multiple of 4; the blocks work on a quarter "
                "of their features"
            )
        depth = (halvings(self.patch_size) + 1, self.blocks_per_group, self.dtype)
        self.encoder = Encoder(self.vocab, self.n_hid, *depth)
        self.decoder = Decoder(self.vocab, self.n_hid, self.n_init, *depth)

    def stats(self, codes: Array) -> Array:
        """Ids (B, h, w) or weights of tokens (B, h, w, V) -> (B, H, W, 6) float32.

        Location mu and ln b of each pixel's logit, three channels each; see
        `logit_laplace_nll`.
        """
        return self.decoder(codes)

    def paint(self, codes: Array) -> tuple[Array, Array]:
        stats = self.stats(codes)
        return nn.sigmoid(stats[..., :3]), stats
