"""VQ-VAE (van den Oord et al., arXiv:1711.00937): images <-> grids of visual tokens."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from beit_jax.models.quantizer import Quantizer, QuantizerOutput

Array = jax.Array


class VQVAEOutput(NamedTuple):
    reconstruction: Array  # (B, H, W, 3) float32, in the pixel space of the input
    quantized: QuantizerOutput


def space_to_depth(x: Array) -> Array:
    """(B, 2h, 2w, C) -> (B, h, w, 4C): each square of four pixels becomes one."""
    batch, height, width, dim = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, dim).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height // 2, width // 2, 4 * dim)


def depth_to_space(x: Array) -> Array:
    """(B, h, w, 4C) -> (B, 2h, 2w, C): undoes `space_to_depth`."""
    batch, height, width, dim = x.shape
    x = x.reshape(batch, height, width, 2, 2, dim // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, 2 * height, 2 * width, dim // 4)


class ResBlock(nn.Module):
    """`x + conv1x1(relu(conv3x3(relu(x))))`."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        dim = x.shape[-1]
        y = nn.Conv(dim, (3, 3), dtype=self.dtype, name="conv3x3")(nn.relu(x))
        return x + nn.Conv(dim, (1, 1), dtype=self.dtype, name="conv1x1")(nn.relu(y))


class Down(nn.Module):
    """Image -> latents: halves the sides `stages` times, then residual blocks.

    A 2x2 convolution of stride 2 is written as `space_to_depth` and a product.
    """

    stages: int
    width: int
    res_blocks: int
    dim: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(B, H, W, 3) -> (B, h, w, dim) float32."""
        for stage in reversed(range(self.stages)):
            x = space_to_depth(x)
            name = f"down_{2 ** (self.stages - stage)}"
            x = nn.Dense(self.width >> stage, dtype=self.dtype, name=name)(x)
            x = nn.relu(x) if stage else x
        for i in range(self.res_blocks):
            x = ResBlock(self.dtype, name=f"block_{i}")(x)
        x = nn.Dense(self.dim, dtype=self.dtype, name="to_code")(nn.relu(x))
        return x.astype(jnp.float32)


class Up(nn.Module):
    """Codes -> image: the mirror of `Down`."""

    stages: int
    width: int
    res_blocks: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(B, h, w, C) -> (B, H, W, 3) float32."""
        x = nn.Dense(self.width, dtype=self.dtype, name="from_code")(x)
        for i in range(self.res_blocks):
            x = ResBlock(self.dtype, name=f"block_{i}")(x)
        for stage in range(1, self.stages + 1):
            dim = self.width >> stage if stage < self.stages else 3
            name = f"up_{2 ** (self.stages - stage)}"
            x = nn.Dense(4 * dim, dtype=self.dtype, name=name)(nn.relu(x))
            x = depth_to_space(x)
        return x.astype(jnp.float32)


class VQVAE(nn.Module):
    """Tokenizer of images and painter of tokens.

    Attributes:
      vocab: V, number of visual tokens.
      code_dim: C, features of a code.
      width: features at the patch grid; each halving before it has half as many.
      res_blocks: in the encoder, and in the decoder.
      patch_size: pixels along a side of what one token stands for; a power of two.
      decay, beta, l2_norm, kmeans_steps, restart_below: see `Quantizer`.
      dtype: of the convolutions; parameters, codes and pixels are float32.
    """

    vocab: int = 512
    code_dim: int = 64
    width: int = 128
    res_blocks: int = 2
    patch_size: int = 4
    decay: float = 0.99
    beta: float = 0.25
    l2_norm: bool = False
    kmeans_steps: int = 10
    restart_below: float = 0.05
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        stages = self.patch_size.bit_length() - 1
        if self.patch_size < 2 or self.patch_size != 2**stages:
            raise ValueError(f"patch_size={self.patch_size} is no power of two above 1")
        if self.width % (2 ** (stages - 1)):
            raise ValueError(
                f"width={self.width} cannot be halved {stages - 1} times; use a "
                f"multiple of {2 ** (stages - 1)}"
            )
        size = (stages, self.width, self.res_blocks)
        self.encoder = Down(*size, self.code_dim, self.dtype)
        self.decoder = Up(*size, self.dtype)
        self.quantizer = Quantizer(
            vocab=self.vocab,
            dim=self.code_dim,
            decay=self.decay,
            beta=self.beta,
            l2_norm=self.l2_norm,
            kmeans_steps=self.kmeans_steps,
            restart_below=self.restart_below,
        )

    def __call__(
        self, image: Array, train: bool = False, weight: Array | None = None
    ) -> VQVAEOutput:
        """Quantizes and reconstructs (B, H, W, 3) float images of any pixel space.

        The codebook learns nothing from images whose `weight` (B,) is 0.
        """
        quantized = self.quantizer(self._latents(image), train, weight)
        return VQVAEOutput(self.decoder(quantized.z_q), quantized)

    def encode(self, image: Array) -> Array:
        """(B, H, W, 3) float -> (B, h, w) int32 visual tokens."""
        return self.quantizer(self._latents(image)).ids

    def decode(self, ids: Array) -> Array:
        """(B, h, w) int32 visual tokens -> (B, H, W, 3) float32 images."""
        return self.decoder(self.quantizer.lookup(ids))

    def _latents(self, image: Array) -> Array:
        height, width = image.shape[1:3]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"image is {height}x{width}; both sides must be multiples of "
                f"patch_size={self.patch_size}"
            )
        return self.encoder(image)
