"""The encoder that a config describes, and its joint initialisation with a head."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from beit_jax import tables
from beit_jax.models.pixels import PIXEL_SPACES, PixelSpace
from beit_jax.models.vit import Encoder
from beit_jax.tasks.base import Array, Tree


def build(config: ConfigDict, **given: Any) -> tuple[Encoder, int, PixelSpace]:
    """The encoder of `config.model`, the side of its square input, its pixel space.

    Raises:
      ValueError: settings that do not fit, or an image that patches do not fill.
    """
    settings = dict(config.model)
    space = pixel_space(settings)
    size, patch = settings.pop("image_size", None), settings.get("patch_size", 16)
    for name, value in (("image_size", size), ("patch_size", patch)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"config.model.{name}={value!r} must be pixels, >= 1")
    if size % patch:
        raise ValueError(
            f"config.model.image_size={size} must be a multiple of patch_size={patch}, "
            f"{size // patch * patch or patch} for example"
        )
    grid = (size // patch, size // patch)
    dtype = jnp.dtype(config.dtype)
    encoder = tables.call(
        Encoder, settings, "config.model", grid=grid, dtype=dtype, **given
    )
    return encoder, size, space


def pixel_space(settings: dict[str, Any]) -> PixelSpace:
    """Takes `pixels` out of a model's settings and looks it up."""
    return tables.lookup(
        PIXEL_SPACES, settings.pop("pixels", "half"), "config.model.pixels"
    )


def init(rng: Array, encoder: Encoder, head: nn.Module, image: Array) -> Tree:
    """Boxed parameters {"encoder": ..., and the head's own names}."""
    encoder_rng, head_rng = jax.random.split(rng)
    variables = encoder.init(encoder_rng, image)
    tokens = encoder.apply(variables, image).tokens
    return {
        "encoder": variables["params"],
        **head.init(head_rng, tokens)["params"],
    }
