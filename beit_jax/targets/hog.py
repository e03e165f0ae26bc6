"""Histograms of oriented gradients (MaskFeat, arXiv:2112.09133)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from beit_jax.ranges import Length

Array = jax.Array
Tree = Any

CELL = 8  # pixels along a side, of a histogram
BINS = 9  # directions; opposite ones share a bin
SPREAD = 8.0  # pixels, of the Gaussian window


class HOG:
    """Mean squared error to the patch's histograms, one for each channel and cell.

    After `HOGLayerC` of facebookresearch/SlowFast: votes are hard, a cell has 8x8
    pixels, and its 9 bins are brought to length 1. That takes out mean and deviation
    of an image. So it is made of whole pixel values 0..255: their gradients are exact,
    and every device has the same target. (Of normalised floats, which the official
    code takes, rounding chooses the bin where an edge is exactly horizontal.)

    Args:
      gaussian: votes near the middle of each 16x16 pixels count more, as in
        mmpretrain's port; the published MaskFeat has no window.
    """

    tokens = False
    frozen = None

    def __init__(
        self, grid: tuple[int, int], patch_size: Length, gaussian: bool = False
    ):
        if patch_size % CELL:
            raise ValueError(
                f"model.patch_size={patch_size} must be a multiple of {CELL}, the "
                "pixels of a cell, for task.target.name='hog'"
            )
        self.grid, self._cells = tuple(grid), patch_size // CELL
        self.outputs = 3 * BINS * self._cells**2
        self.image_size = (grid[0] * patch_size, grid[1] * patch_size)
        self._window = _gaussian(*self.image_size) if gaussian else None

    def __call__(self, frozen: Tree, image: Array) -> Array:
        """Features are in the order channel, bin, cell's row, cell's column."""
        cells = histograms(image.astype(jnp.float32), self._window)
        (h, w), c = self.grid, self._cells
        cells = cells.reshape(-1, h, c, w, c, 3, BINS)
        return cells.transpose(0, 1, 3, 5, 6, 2, 4).reshape(-1, h * w, self.outputs)

    def loss(self, predicted: Array, wanted: Array) -> Array:
        return jnp.mean(jnp.square(predicted - wanted), axis=-1)

    def best(self, predicted: Array) -> Array:
        return predicted

    def paint(self, frozen: Tree, wanted: Array, image: Array) -> Array:
        """In each cell a stroke along the edge of each bin, as bright as the bin."""
        (h, w), c = self.grid, self._cells
        cells = wanted.reshape(-1, h, w, 3, BINS, c, c)
        made = jnp.einsum("bhwcnyx,nij->bhyiwxjc", jnp.maximum(cells, 0), _strokes())
        made = made.reshape(-1, *self.image_size, 3)
        return jnp.round(255 * jnp.minimum(made, 1)).astype(jnp.uint8)


def histograms(image: Array, window: np.ndarray | None = None) -> Array:
    """(B, H, W, 3) float32 whole numbers -> (B, H/8, W/8, 3, 9) of length 1 or 0.

    Args:
      window: (H, W), how much each pixel's vote counts.
    """
    across, down = _gradients(image)
    votes = jnp.sqrt(jnp.square(across) + jnp.square(down))
    if window is not None:
        votes *= window[..., None]
    votes = votes[..., None] * jax.nn.one_hot(_bins(across, down), BINS)
    batch, height, width = image.shape[:3]
    cells = (batch, height // CELL, CELL, width // CELL, CELL, 3, BINS)
    cells = votes.reshape(cells).sum(axis=(2, 4))
    length = jnp.sqrt(jnp.sum(jnp.square(cells), axis=-1, keepdims=True))
    return cells / jnp.maximum(length, 1e-12)


def _gradients(image: Array) -> tuple[Array, Array]:
    """Sobel's, of the image mirrored at its borders: left less right, above less below.

    Sums of shifted images are exact; a convolution may be shortened on accelerators.
    """
    _, height, width, _ = image.shape
    padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    columns = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    across = rows[:, :, :width] - rows[:, :, 2:]
    return across, columns[:, :height] - columns[:, 2:]


def _bins(across: Array, down: Array) -> Array:
    """floor(9 * atan2(across, down) / pi) mod 9, told by the sides of eight lines.

    A whole-numbered gradient is never so near to one of them that float32 could err.
    """
    flip = (across < 0) | ((across == 0) & (down < 0))
    across, down = (jnp.where(flip, -x, x) for x in (across, down))
    angles = np.pi / BINS * np.arange(1, BINS)
    beyond = (
        across * np.float32(np.cos(a)) >= down * np.float32(np.sin(a)) for a in angles
    )
    return sum(side.astype(jnp.int32) for side in beyond)


def _gaussian(height: int, width: int) -> np.ndarray:
    """(height, width) float32: a window of 16x16 pixels that sums to 1, repeated."""
    size = 2 * CELL
    line = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / SPREAD) ** 2)
    window = np.outer(line, line)
    times = (-(-height // size), -(-width // size))
    return np.tile(window / window.sum(), times)[:height, :width].astype(np.float32)


def _strokes() -> np.ndarray:
    """(9, 8, 8) float32: a line across a cell for each bin, along the edge it is of."""
    y, x = np.mgrid[:CELL, :CELL] - (CELL - 1) / 2
    angle = (np.arange(BINS)[:, None, None] + 0.5) * np.pi / BINS
    distance = np.abs(x * np.sin(angle) + y * np.cos(angle))
    return np.clip(1.2 - distance, 0, 1).astype(np.float32)
