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

from typing import NamedTuple

from beit_jax.models import vit

BACKBONES = {"vit": vit.Encoder}


class Shared(NamedTuple):
    """What `model` says besides the settings of a network and its name, "vit"."""

    image_size: int | tuple  # of the images in pixels: a side, or height and width
    pixels: str = "half"  # how they become floats: a row of models/pixels.py
    variant: str = ""  # of a ViT: a row of vit.VARIANTS, which gives what is not set
    preset: str = ""  # of a ViT: one of vit.PRESETS, which gives what is not set
