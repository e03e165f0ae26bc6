"""A map of classes over its image, and which colour is which class."""

from collections.abc import Sequence

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from beit_jax.charts.figure import label
from beit_jax.palette import COLOURS, palette

_LETTER, _LINE, _EDGE = 12, 18, 6  # pixels: of a letter, from line to line, around
_LETTERS = 24  # of a name
_WIDTH = 190  # pixels of the legend


def draw(image: np.ndarray, classes: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """(H, W, 3) uint8 and (H, W) integers -> (H', W', 3) uint8.

    The legend has the classes that are there and names have, the largest first, with
    their shares; what is none of them stays as dark as it is ignored.
    """
    colours = palette()[classes % COLOURS]
    colours[classes >= len(names)] = 0
    picture = (0.5 * image + 0.5 * colours).astype(np.uint8)
    numbers, pixels = np.unique(classes, return_counts=True)
    order = [i for i in np.argsort(-pixels, kind="stable") if numbers[i] < len(names)]
    height = max(picture.shape[0], 2 * _EDGE + _LINE * len(order))
    sheet = Image.new("RGB", (picture.shape[1] + _WIDTH, height), "white")
    sheet.paste(Image.fromarray(picture))
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), _LETTER)
    x = picture.shape[1] + _EDGE
    for line, i in enumerate(order):
        y, share = _EDGE + _LINE * line, pixels[i] / classes.size
        colour = tuple(palette()[numbers[i] % COLOURS].tolist())
        pen.rectangle((x, y, x + _LETTER, y + _LETTER), colour, "black")
        text = f"{share:.1%} {label(names[numbers[i]], _LETTERS)}"
        pen.text((x + 2 * _LETTER, y), text, "black", font)
    return np.asarray(sheet)
