"""Where a transformer looks: attention weights as heat over the image."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from beit_jax.charts.figure import to_image

_CELL = 1.2  # inches


def draw(
    image: np.ndarray,
    maps: np.ndarray,
    blocks: Sequence[int],
    patch: tuple[int, int] | None = None,
) -> np.ndarray:
    """A row for each block: the image, then a map for each head, as in BEiT's paper.

    Args:
      image: (H, W, 3) uint8.
      maps: (L, A, h, w) of all blocks; each is drawn from 0 to its own largest weight.
      blocks: which to draw, counted from 0.
      patch: (row, column) of the query, to be framed; None: it has no place, as [CLS].

    Returns:
      (H', W', 3) uint8.

    Raises:
      ValueError: no block, or one that is not there.
    """
    if not blocks or not set(blocks) <= set(range(len(maps))):
        raise ValueError(f"blocks {list(blocks)} must be some of 0..{len(maps) - 1}")
    heads, ratio = maps.shape[1], image.shape[0] / image.shape[1]
    size = (_CELL * (1 + heads) + 0.3, (_CELL * ratio + 0.1) * len(blocks) + 0.2)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(blocks), 1 + heads, squeeze=False)
    grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2) / 255
    for block, (first, *others) in zip(blocks, grid, strict=True):
        _cell(first, image, maps.shape[2:], patch)
        first.set_ylabel(f"block {block}")
        for axes, heat in zip(others, maps[block], strict=True):
            _cell(axes, grey, maps.shape[2:], patch)
            _overlay(axes, heat)
    for head, axes in enumerate(grid[0, 1:]):
        axes.set_title(f"head {head}", fontsize=9)
    return to_image(figure)


def _cell(
    axes: Axes, image: np.ndarray, grid: tuple[int, int], patch: tuple[int, int] | None
) -> None:
    height, width = image.shape[:2]
    axes.imshow(image, extent=(0, width, height, 0))
    axes.set(xticks=[], yticks=[])
    if patch is not None:
        side = height / grid[0], width / grid[1]
        corner = patch[1] * side[1], patch[0] * side[0]
        axes.add_patch(
            Rectangle(corner, side[1], side[0], fill=False, edgecolor="cyan", lw=1.5)
        )


def _overlay(axes: Axes, heat: np.ndarray) -> None:
    axes.imshow(
        heat,
        extent=(*axes.get_xlim(), *axes.get_ylim()),
        cmap="inferno",
        alpha=0.7,
        vmin=0,
        vmax=heat.max(),
        interpolation="bicubic",
    )
