"""Boxes in an image: random ones, their pixels, and checks of objects' boxes.

Sizes are (height, width), boxes top, left, height, width; all in pixels.
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from beit_jax.data.sources import BadExample

TRIES = 10  # random boxes drawn before the centre is taken
BOX_NUMBERS = 4 * TRIES

Size = tuple[int, int]

FILTERS = {
    "area": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class Box(NamedTuple):
    """A part of an image; it may reach beyond the image, and is padded there."""

    top: int
    left: int
    height: int
    width: int


def random_box(
    u: np.ndarray,
    height: int,
    width: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """The box of a random resized crop, by the law of torchvision and timm.

    Args:
      u: (BOX_NUMBERS,) uniforms; try t uses numbers 4t ... 4t + 3.
      scale: limits of the area, as shares of the image's.
      ratio: limits of width / height, which is log-uniform.

    Returns:
      Of ten tries the first that fits, else the largest centred box of allowed ratio.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for area_u, ratio_u, top_u, left_u in u.reshape(TRIES, 4).tolist():
        area = height * width * (scale[0] + (scale[1] - scale[0]) * area_u)
        aspect = math.exp(low + (high - low) * ratio_u)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = top_u * (height - h + 1), left_u * (width - w + 1)
            return Box(int(top), int(left), h, w)
    h, w = min(height, round(width / ratio[0])), min(width, round(height * ratio[1]))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def square_box(
    u: np.ndarray,
    height: int,
    width: int,
    size: int,
    zoom: tuple[float, float] = (9 / 8, 12 / 8),
) -> Box:
    """The box that DALL-E's dVAE was trained on (arXiv:2102.12092, appendix A.2).

    There a random square as large as the image allows is resized to t pixels, t drawn
    from zoom * size (but never enlarged), and a square of `size` is cut out of that at
    random. Here both cuts are made at once, to the nearest pixel of the image.

    Args:
      u: (5,) uniforms.
      size: side of the view.
    """
    side = min(height, width)
    low, high = (max(size, min(side, round(size * by))) for by in zoom)
    between = low + int(u[2] * (high - low + 1))
    inner = round(side * size / between)
    tops = int(u[0] * (height - side + 1)), int(u[1] * (width - side + 1))
    top, left = (
        start + int(v * (side - inner + 1))
        for start, v in zip(tops, u[3:5], strict=True)
    )
    return Box(top, left, inner, inner)


def padded_box(u: np.ndarray, height: int, width: int, size: Size, pad: int) -> Box:
    """A random box of `size` in the image with `pad` pixels around it (u: (2,))."""
    top = int(u[0] * (height + 2 * pad - size[0] + 1)) - pad
    left = int(u[1] * (width + 2 * pad - size[1] + 1)) - pad
    return Box(top, left, *size)


def crop(
    image: Image.Image, box: Box, beyond: int | tuple[int, ...] = 0
) -> Image.Image:
    """The box's pixels; of the value `beyond` where it reaches beyond the image."""
    if box == (0, 0, image.height, image.width):
        return image
    if lies_in(box, (image.height, image.width)) or not np.any(beyond):
        return image.crop(corners(box))  # black beyond
    top, left, height, width = box
    canvas = Image.new(image.mode, (width, height), beyond)
    canvas.paste(image, (-left, -top))
    return canvas


def lies_in(box: Box, size: Size) -> bool:
    """Whether no part of the box is beyond an image of that size."""
    left, top, right, bottom = corners(box)
    return min(left, top) >= 0 and bottom <= size[0] and right <= size[1]


def resize(image: Image.Image, size: Size, resample: Image.Resampling) -> Image.Image:
    """To height and width, with antialiasing."""
    return image if image.size == size[::-1] else image.resize(size[::-1], resample)


def check_boxes(boxes: np.ndarray, whole: tuple[int, int]) -> None:
    """Raises BadExample for a box without area, or wholly outside the image.

    Args:
      boxes: (M, 4) top, left, bottom, right in pixels.
      whole: width and height of the image.
    """
    top, left, bottom, right = boxes.T
    wrong = (bottom <= np.maximum(top, 0)) | (right <= np.maximum(left, 0))
    wrong |= (top >= whole[1]) | (left >= whole[0])
    if wrong.any():
        raise BadExample(
            f"its box {boxes[wrong.argmax()].tolist()} must be top < bottom, "
            "left < right and reach into the image, which is "
            f"{whole[0]}x{whole[1]} (width x height)"
        )


def corners(box: Box) -> tuple[int, int, int, int]:
    """In Pillow's order: left, top, right, bottom."""
    top, left, height, width = box
    return left, top, left + width, top + height
