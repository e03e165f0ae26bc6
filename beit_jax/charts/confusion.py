"""The confusion matrix of a classifier: which classes are taken for which."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from beit_jax.charts.figure import label, to_image

_NAMED = 100  # classes that are named, others are numbered
_COUNTED = 20  # classes of which each cell has its count


def draw(counts: np.ndarray, class_names: Sequence[str] = ()) -> np.ndarray:
    """(C, C) counts, a row for each true class -> (H, W, 3) uint8.

    The colour is the share of a row; its scale is bent so that rare mistakes show.

    Args:
      class_names: C of them, or none: then classes are numbered.
    """
    classes = len(counts)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = np.clip(0.4 * classes, 4, 11)
    figure = Figure((side + 2.5, side + 1.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(
        share, cmap="magma", norm=PowerNorm(1 / 3, 0, 1), interpolation="nearest"
    )
    if len(class_names) == classes <= _NAMED:
        size = min(9, 72 * side / classes * 0.8)
        ticks = {"labels": [label(name, 20) for name in class_names], "fontsize": size}
        axes.set_xticks(range(classes), rotation=90, **ticks)
        axes.set_yticks(range(classes), **ticks)
    if classes <= _COUNTED:
        _write_counts(axes, counts, share)
    axes.set(xlabel="predicted", ylabel="true")
    right = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(f"{counts.sum()} images, {right:.1%} right")
    bar = figure.colorbar(shown, ax=axes, shrink=0.7, ticks=(0, 0.01, 0.1, 0.5, 1))
    bar.ax.set_yticklabels(("0", "1 %", "10 %", "50 %", "100 %"))
    bar.set_label("of the true class")
    return to_image(figure)


def _write_counts(axes: Axes, counts: np.ndarray, share: np.ndarray) -> None:
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "black" if share[row, column] > 0.3 else "white"
        number = counts[row, column]
        axes.text(
            column, row, number, ha="center", va="center", color=colour, fontsize=8
        )
