"""Pictures of examples, one below the other, with what their columns are."""

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from beit_jax.charts.figure import label, letters

_SMALLEST = 128  # pixels of a row: tiny images are enlarged
_LETTER, _LINE, _EDGE = 11, 14, 6  # pixels: of a letter, from line to line, around
_LETTERS = 60  # of a name
_LINES = 5  # that a head may take


def draw(
    rows: np.ndarray, title: str, columns: Sequence[str] = (), names: Sequence[str] = ()
) -> np.ndarray:
    """(B, H, W, 3) uint8 with a title and heads -> (H', W', 3) uint8.

    Args:
      columns: what lies side by side in each row, all of one width.
      names: of the rows, beside them; B of them or none.
    """
    picture = _enlarged(rows)
    font = letters(_LETTER)
    cell = picture.width // max(len(columns), 1)
    margin = _LINE * 7 if names else 0  # for names
    heads = [_wrapped(head, cell) for head in columns]
    above = [_wrapped(title, margin + picture.width)]
    tall = [_LINE * max(map(len, part), default=0) for part in (above, heads)]
    top = sum(tall) + 2 * _EDGE
    sheet = Image.new("RGB", (margin + picture.width, top + picture.height), "white")
    sheet.paste(picture, (margin, top))
    pen = ImageDraw.Draw(sheet)

    def write(x: int, y: int, lines: Sequence[str]) -> None:
        pen.multiline_text((x, y), "\n".join(lines), "black", font, spacing=1)

    write(_EDGE, _EDGE, above[0])
    for number, head in enumerate(heads):
        write(margin + number * cell + _EDGE, _EDGE + tall[0], head)
    for number, name in enumerate(names):
        y = top + number * picture.height // len(rows)
        write(_EDGE, y + _EDGE, _wrapped(label(name, _LETTERS), margin))
    return np.asarray(sheet)


def _enlarged(rows: np.ndarray) -> Image.Image:
    image = Image.fromarray(np.concatenate(list(rows)))
    scale = max(1, _SMALLEST // rows.shape[1])
    size = image.width * scale, image.height * scale
    return image.resize(size, Image.Resampling.NEAREST)


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` pixels, as far as letters are of usual width."""
    letters = max(int((width - _EDGE) / (0.6 * _LETTER)), 1)
    return textwrap.wrap(text, letters, max_lines=_LINES, placeholder=" …")
