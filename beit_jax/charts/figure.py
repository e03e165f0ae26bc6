"""From a Matplotlib figure to pixels."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def to_image(figure: Figure) -> np.ndarray:
    """(H, W, 3) uint8; no display is needed."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
