"""Tokenizers that draw their tokens by Gumbel-softmax (arXiv:1611.01144)."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from beit_jax.models.patches import check_sides

Array = jax.Array


class GumbelOutput(NamedTuple):
    reconstruction: Array  # (B, H, W, 3) float32, in the pixel space of the input
    stats: Array | None  # (B, H, W, 6) float32, mu and ln b of every pixel; or None
    logits: Array  # (B, h, w, V) float32


def gumbel_softmax(
    logits: Array, noise: Array, temperature: Array | float, hard: bool = False
) -> Array:
    """A nearly one-hot draw from softmax(logits), through which gradients flow.

    Args:
      logits: (..., V) float32.
      noise: (..., V) float32 from the standard Gumbel distribution.
      temperature: of the softmax; the draw is one-hot in the limit 0.
      hard: return the one-hot vector, with the gradient of the soft draw
        (straight-through).
    """
    soft = jax.nn.softmax((logits + noise) / temperature)
    if not hard:
        return soft
    one_hot = jax.nn.one_hot(jnp.argmax(soft, -1), soft.shape[-1])
    return one_hot + (soft - jax.lax.stop_gradient(soft))


def kl_to_uniform(logits: Array) -> Array:
    """KL(softmax(logits) || uniform over V) of every position, in nats.

    (..., V) float32 -> (...), in [0, ln V]. BEiT's "customized" DiscreteVAE has one
    number for the whole batch: the sum over all images and positions (its "batchmean"
    divides by 1), so its weight of this term grows with both. It also adds 1e-10 to the
    probabilities before the logarithm.
    """
    log_probs = jax.nn.log_softmax(logits)
    surplus = log_probs + jnp.log(logits.shape[-1])
    return jnp.sum(jnp.exp(log_probs) * surplus, -1)


def cosine_anneal(step: Array, start: float, end: float, steps: int) -> Array:
    """From `start` at step 0 to `end` at `steps` along half a cosine; then `end`."""
    done = jnp.where(step < steps, step / max(steps, 1), 1.0)
    return end + (start - end) * (1 + jnp.cos(jnp.pi * done)) / 2


class GumbelTokenizer(nn.Module):
    """What tokenizers with logits share.

    A subclass has fields `vocab` and `patch_size`, sets up an `encoder` from images to
    logits, and has `paint`.
    """

    def paint(self, codes: Array) -> tuple[Array, Array | None]:
        """Ids (B, h, w) int32, or weights of tokens (B, h, w, V) -> the picture.

        As the first two members of `GumbelOutput`.
        """
        raise NotImplementedError

    def __call__(
        self, image: Array, temperature: Array | None = None, hard: bool = False
    ) -> GumbelOutput:
        """Draws tokens of (B, H, W, 3) float images, and paints them again.

        Without a temperature it takes each patch's likeliest token. Otherwise see
        `gumbel_softmax`; the noise comes from the rng collection "gumbel".
        """
        logits = self.logits(image)
        return GumbelOutput(*self.paint(self.draw(logits, temperature, hard)), logits)

    def decode(self, codes: Array) -> Array:
        """As `paint` -> (B, H, W, 3) float32 images."""
        return self.paint(codes)[0]

    def logits(self, image: Array) -> Array:
        """(B, H, W, 3) float -> (B, h, w, V) float32."""
        check_sides(image, self.patch_size)
        return self.encoder(image)

    def encode(self, image: Array) -> Array:
        """(B, H, W, 3) float -> (B, h, w) int32 visual tokens."""
        return jnp.argmax(self.logits(image), -1).astype(jnp.int32)

    def draw(self, logits: Array, temperature: Array | None, hard: bool) -> Array:
        """The likeliest ids; with a temperature, `gumbel_softmax` of all tokens.

        Its noise comes from the rng collection "gumbel".
        """
        if temperature is None:
            return jnp.argmax(logits, -1)
        noise = jax.random.gumbel(self.make_rng("gumbel"), logits.shape)
        return gumbel_softmax(logits, noise, temperature, hard)


class CodeProjection(nn.Module):
    """A decoder's first layer: a product with codes, or rows of its kernel for ids.

    In float32, whatever the rest of the decoder computes in.
    """

    vocab: int
    dim: int
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    use_bias: bool = True

    @nn.compact
    def __call__(self, codes: Array) -> Array:
        """(B, h, w) int32 or (B, h, w, V) float32 -> (B, h, w, dim) float32."""
        kernel = self.param("kernel", self.kernel_init, (self.vocab, self.dim))
        is_ids = jnp.issubdtype(codes.dtype, jnp.integer)
        x = kernel[codes] if is_ids else codes @ kernel
        if not self.use_bias:
            return x
        return x + self.param("bias", nn.initializers.zeros, (self.dim,))
