"""Raw pixels of the masked patches (BEiT's ablation, table 4: "pixel regression")."""

from typing import Any

import jax
import jax.numpy as jnp

from beit_jax.models.pixels import PIXEL_SPACES

Array = jax.Array
Tree = Any


class Pixels:
    """Mean squared error to the patch's own pixels, in [-1, 1]."""

    tokens = False
    step = None

    def __init__(self, grid: tuple[int, int], patch_size: int):
        self.grid, self.patch_size = grid, patch_size
        self.outputs = 3 * patch_size**2
        self.image_size = grid[0] * patch_size
        self._space = PIXEL_SPACES["half"]

    def load_frozen(self) -> Tree:
        return {}

    def __call__(self, frozen: Tree, image: Array) -> Array:
        image = self._space.to_float(image)
        (h, w), p = self.grid, self.patch_size
        patches = image.reshape(-1, h, p, w, p, 3).transpose(0, 1, 3, 2, 4, 5)
        return patches.reshape(-1, h * w, self.outputs)

    def loss(self, predicted: Array, wanted: Array) -> Array:
        return jnp.mean(jnp.square(predicted - wanted), axis=-1)

    def best(self, predicted: Array) -> Array:
        return predicted

    def paint(self, frozen: Tree, wanted: Array) -> Array:
        (h, w), p = self.grid, self.patch_size
        image = wanted.reshape(-1, h, w, p, p, 3).transpose(0, 1, 3, 2, 4, 5)
        return self._space.to_uint8(image.reshape(-1, h * p, w * p, 3))
