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

from beit_jax.models import vit

BACKBONES = {"vit": vit.Encoder}
