"""Classes of pixels as colours, and a strip that tells which colour is which."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from beit_jax.charts.figure import label, letters

_LETTER, _LINE, _EDGE = 12, 18, 6  # pixels: of a letter, from line to line, around
COLUMN, _LETTERS = 168, 18  # pixels and letters that a name may take


def blend(image: np.ndarray, classes: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 half as it is, half in the colours of its classes.

    Args:
      classes: (H, W) integers; what is none of the colours' is darkened instead.
      colours: (C, 3) levels.
    """
    known = classes < len(colours)
    shown = np.where(known[..., None], colours[np.where(known, classes, 0)], 0)
    return ((image.astype(int) + shown) // 2).astype(np.uint8)


def draw(names: Sequence[str], colours: np.ndarray, width: int) -> np.ndarray:
    """Names beside their colours -> (H, width, 3) uint8, as many lines as they take."""
    columns = max(1, width // COLUMN)
    lines = -(-len(names) // columns)
    strip = Image.new("RGB", (width, 2 * _EDGE + _LINE * lines), "white")
    pen = ImageDraw.Draw(strip)
    font = letters(_LETTER)
    for number, (name, colour) in enumerate(zip(names, colours, strict=True)):
        line, column = divmod(number, columns)
        x, y = _EDGE + column * COLUMN, _EDGE + line * _LINE
        pen.rectangle((x, y, x + _LETTER, y + _LETTER), tuple(map(int, colour)))
        text = label(name, _LETTERS)
        pen.text((x + 2 * _LETTER - _EDGE, y - 1), text, "black", font)
    return np.asarray(strip)
