"""Pixel spaces: the float ranges in which models want their uint8 images."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class PixelSpace(NamedTuple):
    """Floats `(pixel / 255 - mean) / std`, channel by channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def to_float(self, image: jax.Array) -> jax.Array:
        """(..., 3) uint8, or float in [0, 255], -> float32 in this space."""
        image = image.astype(jnp.float32) / 255
        return (image - jnp.array(self.mean)) / jnp.array(self.std)

    def to_255(self, image: jax.Array) -> jax.Array:
        """(..., 3) float in this space -> float in [0, 255]; undoes `to_float`."""
        return (image * jnp.array(self.std) + jnp.array(self.mean)) * 255

    def to_uint8(self, image: jax.Array) -> jax.Array:
        """(..., 3) float in this space -> uint8; rounds, and clips to 0..255."""
        image = image.astype(jnp.float32) * jnp.array(self.std) + jnp.array(self.mean)
        return jnp.clip(jnp.round(image * 255), 0, 255).astype(jnp.uint8)


PIXEL_SPACES = {
    "centred": PixelSpace((0.5, 0.5, 0.5), (1.0, 1.0, 1.0)),  # [-0.5, 0.5]
    "clip": PixelSpace(
        (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    ),
    # DALL-E's logit-Laplace map 0.8 x + 0.1 of [0, 1], which keeps off 0 and 1.
    "dalle": PixelSpace((-0.125, -0.125, -0.125), (1.25, 1.25, 1.25)),
    "half": PixelSpace((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # [-1, 1]
    "imagenet": PixelSpace((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "raw": PixelSpace((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),  # [0, 255]
    "unit": PixelSpace((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),  # [0, 1]
}
