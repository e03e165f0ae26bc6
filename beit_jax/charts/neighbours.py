"""The images that lie nearest to others in the space of features."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from beit_jax.charts.figure import label, to_image

_CELL = 1.1  # inches
_RIGHT, _WRONG = "tab:green", "tab:red"
_LETTERS = 14  # of a class name that a cell has room for


def draw(
    queries: np.ndarray,
    classes: Sequence[str],
    neighbours: np.ndarray,
    neighbour_classes: Sequence[Sequence[str]],
) -> np.ndarray:
    """A row for each query: itself, then its neighbours, framed by whether right.

    Args:
      queries: (Q, H, W, 3) uint8.
      classes: names of theirs.
      neighbours: (Q, K, H, W, 3) uint8, the nearest first.
      neighbour_classes: names of theirs, Q times K.

    Returns:
      (H', W', 3) uint8.
    """
    rows, columns = neighbours.shape[:2]
    ratio = queries.shape[1] / queries.shape[2]
    size = (_CELL * (1 + columns), (_CELL * ratio + 0.2) * rows + 0.2)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, 1 + columns, squeeze=False)
    for row, cells in enumerate(grid):
        wanted = classes[row]
        _cell(cells[0], queries[row], wanted, "black")
        for axes, image, name in zip(
            cells[1:], neighbours[row], neighbour_classes[row], strict=True
        ):
            _cell(axes, image, name, _RIGHT if name == wanted else _WRONG)
    grid[0, 0].set_title("query", fontsize=9, weight="bold")
    grid[0, 1].set_title("nearest first", fontsize=9, loc="left")
    return to_image(figure)


def _cell(axes: Axes, image: np.ndarray, name: str, colour: str) -> None:
    axes.imshow(image)
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(label(name, _LETTERS), fontsize=8, color=colour, labelpad=2)
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=3)
