"""The encoders by the name that `config.model.name` says. A new one is a line here.

Each is a Linen module from images (and perhaps a mask) to `features.Features`, with

  grid, patch_size, dim   (h, w) patches, pixels along a side of one, width of `last`
  settings(model, pretraining)   what a config's section `model` means, with defaults of
                          variants and presets filled in; a static method
  layers(params)          the number of each parameter's layer, () int or, for stacked
                          blocks, (L, 1, ...): embeddings 0, block i is i + 1, what
                          follows the blocks L + 1
  adapt(params, model)    parameters that another run trained with the section `model`,
                          for this module: its positions, above all
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from beit_jax import lookup
from beit_jax.models import vit
from beit_jax.models.patches import size_and_grid
from beit_jax.models.pixels import PIXEL_SPACES, PixelSpace

BACKBONES = {"vit": vit.Encoder}


class Shared(NamedTuple):
    """What `model` says besides the settings of a network and its name, "vit"."""

    image_size: int | tuple  # of the images in pixels: a side, or height and width
    pixels: str = "half"  # how they become floats: a row of models/pixels.py
    variant: str = ""  # of a ViT: a size of models/presets.py for what is not set
    preset: str = ""  # of a ViT: a network of models/presets.py for what is not set


def build(
    model: Mapping[str, Any], dtype: jnp.dtype, **given: Any
) -> tuple[nn.Module, tuple[int, int], PixelSpace]:
    """The backbone of a section `model`, (height, width) of its input, its pixel space.

    Besides the backbone's settings, `model` has what `Shared` tells, and perhaps `name`
    (of BACKBONES; else it is a ViT). What a variant or a preset gives is a default:
    what else is set wins.

    Args:
      given: what the caller decides; `mask_token=True` means that it pre-trains.

    Raises:
      ValueError: settings that do not fit, or an image that patches do not fill.
    """
    settings = dict(model)
    name = settings.pop("name", "vit")
    backbone = lookup.lookup(BACKBONES, name, "beit_jax.models.backbones")
    settings = backbone.settings(settings, given.get("mask_token", False))
    space = pixel_space(settings)
    size, grid = size_and_grid(settings)
    settings.pop("image_size")
    encoder = lookup.call(
        backbone, settings, "config.model", grid=grid, dtype=dtype, **given
    )
    return encoder, size, space


def pixel_space(settings: dict[str, Any]) -> PixelSpace:
    """Takes `pixels` out of a model's settings and looks it up."""
    return lookup.lookup(
        PIXEL_SPACES, settings.pop("pixels", "half"), "config.model.pixels"
    )
