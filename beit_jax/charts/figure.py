"""From a Matplotlib figure to pixels, and from names to what it can write."""

import functools

import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import ImageFont

from beit_jax.text import escaped


def to_image(figure: Figure) -> np.ndarray:
    """(H, W, 3) uint8; no display is needed, and no text is taken for a formula."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def label(name: str, letters: int) -> str:
    """`name`, cut to so many letters; those that the font lacks by their codes."""
    short = name if len(name) <= letters else name[: letters - 1] + "…"
    return "".join(char if _is_drawn(char) else escaped(char) for char in short)


def letters(size: int) -> ImageFont.FreeTypeFont:
    """The font of pictures without Matplotlib, so many pixels high."""
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


@functools.cache
def _is_drawn(char: str) -> bool:
    return char.isprintable() and bool(_font().get_char_index(ord(char)))


@functools.cache
def _font():
    return font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
