"""Pixels of the patches: BEiT's ablation (table 4), MAE and SimMIM."""

from typing import Any

import jax
import jax.numpy as jnp

from beit_jax.lookup import lookup
from beit_jax.models.patches import joined
from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.ranges import Length
from beit_jax.targets import distances

Array = jax.Array
Tree = Any

LOSSES = {"mse": distances.mse, "l1": distances.l1}


class Pixels:
    """Mean squared error (or "l1") to the patch's own pixels.

    Values of a patch are in the order row, column, channel.

    Args:
      normalize: every patch is first brought to mean 0 and variance 1 over its pixels
        and channels, which MAE found better (arXiv:2111.06377, table 1d).
      loss: "mse" or "l1", which is SimMIM's (arXiv:2111.09886).
      pixels: the space they are told in, a row of models/pixels.py: MAE and SimMIM
        have "imagenet".
    """

    tokens = False
    frozen = None

    def __init__(
        self,
        grid: tuple[int, int],
        patch_size: Length,
        normalize: bool = False,
        loss: str = "mse",
        pixels: str = "half",
    ):
        if loss not in LOSSES:
            raise ValueError(
                f"task.target.loss={loss!r} is none of {', '.join(LOSSES)}"
            )
        self.grid, self.patch_size = tuple(grid), patch_size
        self.outputs = 3 * patch_size**2
        self.image_size = (grid[0] * patch_size, grid[1] * patch_size)
        self._space = lookup(PIXEL_SPACES, pixels, "task.target.pixels")
        self._normalize = normalize
        self._distance = LOSSES[loss]

    def __call__(self, frozen: Tree, image: Array) -> Array:
        patches = self._patches(image)
        if not self._normalize:
            return patches
        mean, deviation = self._statistics(patches)
        return (patches - mean) / deviation

    def loss(self, predicted: Array, wanted: Array) -> Array:
        return self._distance(predicted, wanted)

    def best(self, predicted: Array) -> Array:
        return predicted

    def paint(self, frozen: Tree, wanted: Array, image: Array) -> Array:
        if self._normalize:
            mean, deviation = self._statistics(self._patches(image))
            wanted = wanted * deviation + mean
        patches = wanted.reshape(-1, *self.grid, self.outputs)
        return self._space.to_uint8(joined(patches, self.patch_size))

    def _patches(self, image: Array) -> Array:
        """(B, H, W, 3) uint8 -> (B, N, outputs) in the pixel space."""
        image = self._space.to_float(image)
        (h, w), p = self.grid, self.patch_size
        patches = image.reshape(-1, h, p, w, p, 3).transpose(0, 1, 3, 2, 4, 5)
        return patches.reshape(-1, h * w, self.outputs)

    def _statistics(self, patches: Array) -> tuple[Array, Array]:
        """(B, N, 1) means and deviations, of the unbiased variance as in MAE."""
        mean = patches.mean(-1, keepdims=True)
        return mean, jnp.sqrt(patches.var(-1, keepdims=True, ddof=1) + 1e-6)
