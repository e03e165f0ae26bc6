"""VQ-VAE (van den Oord et al., arXiv:1711.00937): images <-> grids of visual tokens."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from beit_jax.lookup import lookup
from beit_jax.models.patches import check_sides, halvings
from beit_jax.models.quantizer import Quantizer, QuantizerOutput
from beit_jax.models.vqvae_layers import NETWORKS
from beit_jax.ranges import Count, Length, Share, Weight

Array = jax.Array


class VQVAEOutput(NamedTuple):
    reconstruction: Array  # (B, H, W, 3) float32, in the pixel space of the input
    quantized: QuantizerOutput


class VQVAE(nn.Module):
    """Tokenizer of images and painter of tokens.

    Attributes:
      vocab: V, number of visual tokens.
      code_dim: C, features of a code.
      network: "patches": pixels meet only in their patch before the residual blocks
        mix patches; "convolutions": DeepMind's, of 4x4 kernels with stride 2.
      width: features at the patch grid; each halving before it has half as many.
      res_blocks: in the encoder, and in the decoder.
      res_hidden: features inside a residual block; 0 = as many as outside, `width`.
      patch_size: pixels along a side of what one token stands for; a power of two.
      learning, decay, beta, l2_norm, kmeans_steps, kmeans_batches, restart_below: see
        `Quantizer`.
      dtype: of the convolutions; parameters, codes and pixels are float32.
    """

    vocab: Length = 512
    code_dim: Length = 64
    network: str = "patches"
    width: Length = 128
    res_blocks: Count = 2
    res_hidden: Count = 0
    patch_size: Length = 4
    learning: str = Quantizer.learning
    decay: Share = Quantizer.decay
    beta: Weight = Quantizer.beta
    l2_norm: bool = Quantizer.l2_norm
    kmeans_steps: Count = Quantizer.kmeans_steps
    kmeans_batches: Length = Quantizer.kmeans_batches
    restart_below: Share = Quantizer.restart_below
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        down, up = lookup(NETWORKS, self.network, "network")
        res_hidden = self.res_hidden or self.width
        size = (self._stages(), self.width, self.res_blocks, res_hidden, self.dtype)
        self.encoder = down(*size, self.code_dim)
        self.decoder = up(*size)
        self.quantizer = Quantizer(
            vocab=self.vocab,
            dim=self.code_dim,
            learning=self.learning,
            decay=self.decay,
            beta=self.beta,
            l2_norm=self.l2_norm,
            kmeans_steps=self.kmeans_steps,
            kmeans_batches=self.kmeans_batches,
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

    def _stages(self) -> int:
        """How often the image is halved on the way to the tokens."""
        stages = halvings(self.patch_size)
        if self.width % (2 ** (stages - 1)):
            raise ValueError(
                f"width={self.width} cannot be halved {stages - 1} times; use a "
                f"multiple of {2 ** (stages - 1)}"
            )
        return stages

    def _latents(self, image: Array) -> Array:
        check_sides(image, self.patch_size)
        return self.encoder(image)
