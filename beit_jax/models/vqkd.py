"""VQ-KD, the tokenizer of BEiT v2: codes from which a teacher's features follow."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from beit_jax.models.features import Features
from beit_jax.models.layers import Linear, plain_normal
from beit_jax.models.patches import Grid, check_sides, joined
from beit_jax.models.quantizer import Quantizer, QuantizerOutput
from beit_jax.models.vit import Encoder
from beit_jax.ranges import Count, Length, Positive, Share, Weight

Array = jax.Array


class VQKDOutput(NamedTuple):
    features: Array  # (B, h, w, teacher_dim) float32, what the teacher is to say
    reconstruction: Array | None  # (B, H, W, 3) float32, in the input's pixel space
    quantized: QuantizerOutput


class VQKD(nn.Module):
    """Vector-quantized knowledge distillation (Peng et al., arXiv:2208.06366).

    A ViT makes one unit code a patch, another makes a teacher's features of the codes:
    tokens that tell what is there more than how it looks. The codebook follows its
    latents by moving averages; see `Quantizer` with l2_norm. The defaults are the
    published network, of 3 decoder blocks.

    A decoder of pixels may learn beside it, so that tokens can be looked at. No
    gradient goes from it to what makes the codes.

    Attributes:
      image_size: height and width for which the positions are made, in pixels.
      vocab: V, number of visual tokens.
      code_dim: C, features of a code.
      teacher_dim: features of the teacher's patches.
      patch_size: pixels along a side of what one token stands for.
      dim, depth, heads: of the encoder.
      teacher_blocks, decoder_dim, decoder_heads: blocks of the ViT from codes to the
        teacher's features, and its width and heads.
      pixel_blocks: of the decoder of pixels, of the same width; 0: there is none.
      norm_eps: added to the variance in layer norms.
      decay, beta, kmeans_steps, kmeans_batches, restart_below: see `Quantizer`.
      dtype: of products; parameters, codes, features and pixels are float32.
    """

    image_size: tuple[int, int]
    vocab: Length = 8192
    code_dim: Length = 32
    teacher_dim: Length = 768
    patch_size: Length = 16
    dim: Length = 768
    depth: Length = 12
    heads: Length = 12
    teacher_blocks: Length = 3
    decoder_dim: Length = 768
    decoder_heads: Length = 12
    pixel_blocks: Count = 0
    norm_eps: Positive = 1e-6
    decay: Share = Quantizer.decay
    beta: Weight = 1.0
    kmeans_steps: Count = Quantizer.kmeans_steps
    kmeans_batches: Length = Quantizer.kmeans_batches
    restart_below: Share = 0.0
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.encoder = self._vit(self.dim, self.depth, self.heads, self.patch_size)
        self.to_code = TwoLayers(self.dim, self.code_dim, self.dtype)
        self.quantizer = Quantizer(
            vocab=self.vocab,
            dim=self.code_dim,
            decay=self.decay,
            beta=self.beta,
            l2_norm=True,
            kmeans_steps=self.kmeans_steps,
            kmeans_batches=self.kmeans_batches,
            restart_below=self.restart_below,
        )
        wide = self.decoder_dim
        self.student = self._vit(wide, self.teacher_blocks, self.decoder_heads, 1)
        self.to_teacher = TwoLayers(wide, self.teacher_dim, self.dtype)
        if self.pixel_blocks:
            self.decoder = self._vit(wide, self.pixel_blocks, self.decoder_heads, 1)
            self.to_pixels = TwoLayers(wide, 3 * self.patch_size**2, self.dtype)

    def __call__(
        self, image: Array, train: bool = False, weight: Array | None = None
    ) -> VQKDOutput:
        """Codes of (B, H, W, 3) float images of any pixel space, and what they tell.

        The codebook learns nothing from images whose `weight` (B,) is 0.
        """
        quantized = self.quantizer(self._latents(image), train, weight)
        features = self.to_teacher(_patches(self.student(quantized.z_q)))
        painted = None
        if self.pixel_blocks:
            painted = self._paint(jax.lax.stop_gradient(quantized.z_q))
        return VQKDOutput(features, painted, quantized)

    def encode(self, image: Array) -> Array:
        """(B, H, W, 3) float -> (B, h, w) int32 visual tokens."""
        return self.quantizer(self._latents(image)).ids

    def decode(self, ids: Array) -> Array:
        """(B, h, w) int32 visual tokens -> (B, H, W, 3) float32 images.

        Raises:
          ValueError: there is no decoder of pixels.
        """
        if not self.pixel_blocks:
            raise ValueError(
                "these tokens have no decoder of pixels, pixel_blocks=0; train one "
                "beside them with model.pixel_blocks=4, say"
            )
        return self._paint(self.quantizer.lookup(ids))

    def _vit(self, dim: int, depth: int, heads: int, patch_size: int) -> Encoder:
        """A plain ViT of image (patch_size of its own) or codes (patch_size 1)."""
        return Encoder(
            grid=self._grid(),
            dim=dim,
            depth=depth,
            heads=heads,
            patch_size=patch_size,
            abs_pos_embed="learned",
            rel_pos_bias="none",
            layer_scale=0.0,
            norm_eps=self.norm_eps,
            dtype=self.dtype,
            init_as="finetune",
        )

    def _grid(self) -> Grid:
        height, width = self.image_size
        return height // self.patch_size, width // self.patch_size

    def _latents(self, image: Array) -> Array:
        """(B, H, W, 3) -> (B, h, w, C)"""
        check_sides(image, self.patch_size)
        return self.to_code(_patches(self.encoder(image)))

    def _paint(self, codes: Array) -> Array:
        """(B, h, w, C) -> (B, H, W, 3)"""
        return joined(self.to_pixels(_patches(self.decoder(codes))), self.patch_size)


class TwoLayers(nn.Module):
    """Two linear layers with a tanh between them; the first is of `dim` features."""

    dim: int
    outputs: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(..., dim) -> (..., outputs) float32."""
        form = {"dtype": self.dtype, "kernel_init": plain_normal}
        y = Linear(self.dim, ("embed", "mlp"), name="fc1", **form)(x)
        # The code is what is left of an image: its axis is split over no devices.
        return Linear(self.outputs, ("mlp", None), name="fc2", **form)(jnp.tanh(y))


def _patches(features: Features) -> Array:
    """(B, h, w, D), the last ones."""
    patches = features.last.patches
    return patches.reshape(len(patches), *features.grid, -1)
