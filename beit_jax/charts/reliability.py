"""The reliability diagram: is a classifier as often right as it says?"""

import numpy as np
from matplotlib.figure import Figure

from beit_jax.charts.figure import to_image


def draw(
    count: np.ndarray, accuracy: np.ndarray, confidence: np.ndarray, error: float
) -> np.ndarray:
    """Bins of equal width in confidence, (bins,) each -> (H, W, 3) uint8.

    Args:
      count: examples in a bin.
      accuracy: share of them that are right.
      confidence: their mean confidence.
      error: the expected calibration error, for the title.
    """
    width = 1 / len(count)
    left, some = width * np.arange(len(count)), count > 0
    figure = Figure((5, 6), dpi=120, layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    upper.bar(left, accuracy, width, align="edge", edgecolor="white", label="accuracy")
    upper.plot((0, 1), (0, 1), "--", color="grey", label="as often right as it says")
    upper.plot(confidence[some], accuracy[some], "o", color="black", label="bin means")
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    upper.set_title(f"expected calibration error {error:.3f}")
    upper.legend(loc="upper left")
    lower.bar(left, count / max(count.sum(), 1), width, align="edge", edgecolor="white")
    lower.set(xlabel="confidence", ylabel="share of images")
    return to_image(figure)
