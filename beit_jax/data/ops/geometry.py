"""Where a view lies in its image, and how image, labels and boxes are brought there.

Sizes are (height, width), boxes top, left, height, width; all in pixels.
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from beit_jax.data.sources import BadExample

TRIES = 10  # random boxes drawn before the centre is taken
BOX_NUMBERS = 4 * TRIES
IGNORED_LABEL = 255  # where a label map has no pixel
NEAREST = Image.Resampling.NEAREST
_HUGE = 2**26  # pixels that no resized image should have

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


def padded_box(
    u: np.ndarray, height: int, width: int, size: tuple[int, int], pad: int
) -> Box:
    """A random box of `size` in the image with `pad` pixels around it (u: (2,))."""
    top = int(u[0] * (height + 2 * pad - size[0] + 1)) - pad
    left = int(u[1] * (width + 2 * pad - size[1] + 1)) - pad
    return Box(top, left, *size)


def crop(image: Image.Image, box: Box) -> Image.Image:
    """The box's pixels; black beyond the image."""
    whole = (0, 0, image.height, image.width)
    return image if box == whole else image.crop(_corners(box))


def resize(
    image: Image.Image, size: tuple[int, int], resample: Image.Resampling
) -> Image.Image:
    """To height and width, with antialiasing."""
    return image if image.size == size[::-1] else image.resize(size[::-1], resample)


def cut_labels(labels: Image.Image, box: Box, size: tuple[int, int]) -> Image.Image:
    """As crop and resize, taking the nearest pixel; IGNORED_LABEL beyond the image."""
    frame = Image.new("L", (box.width, box.height), IGNORED_LABEL)
    frame.paste(labels, (-box.left, -box.top))
    return frame.resize(size[::-1], NEAREST)


def move_boxes(
    boxes: np.ndarray, box: Box, size: tuple[int, int], flip: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Objects' boxes (M, 4) top, left, bottom, right into a view.

    Returns:
      The boxes (M, 4) float32, clipped to the view; (M,) bool, whether any of it is
      left to see.
    """
    zoom = np.tile([size[0] / box.height, size[1] / box.width], 2)
    moved = (boxes - np.tile([box.top, box.left], 2)) * zoom
    if flip:
        moved[:, [1, 3]] = size[1] - moved[:, [3, 1]]
    moved = np.clip(moved, 0, np.tile(size, 2)).astype(np.float32)
    return moved, (moved[:, 2] > moved[:, 0]) & (moved[:, 3] > moved[:, 1])


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


def centre_cut(
    image: Image.Image,
    size: tuple[int, int],
    resample: Image.Resampling,
    crop_pct: float = 1.0,
) -> Image.Image:
    """Resizes until `int(size / crop_pct)` is just covered, then cuts out the centre.

    torchvision's Resize and CenterCrop, to the last bit. Only an image so thin that
    the resized one would be huge is cut and resized in one go, which can differ by
    one level.
    """
    (height, width), (top, left) = _centre(image.size, size, crop_pct)
    if height * width > _HUGE:
        box = centre_box(image.size, size, crop_pct)
        return image.resize(size[::-1], resample, box=_corners(box))
    image = resize(image, (height, width), resample)
    return crop(image, Box(top, left, *size))


def centre_box(whole: tuple[int, int], size: tuple[int, int], crop_pct: float) -> Box:
    """What `centre_cut` shows of an image of that width and height, in fractions."""
    (height, width), (top, left) = _centre(whole, size, crop_pct)
    down, across = whole[1] / height, whole[0] / width
    return Box(top * down, left * across, size[0] * down, size[1] * across)


def _centre(whole: tuple[int, int], size: tuple[int, int], crop_pct: float):
    """Height and width of the resized image; top and left of the crop in it."""
    given = whole[::-1]
    zoom = max(int(s / crop_pct) / g for s, g in zip(size, given, strict=True))
    # The small addend undoes the rounding error of an exact fit.
    resized = tuple(int(side * zoom + 1e-6) for side in given)
    # torchvision's CenterCrop: the odd pixel goes by Python's round.
    start = tuple(round((r - s) / 2) for r, s in zip(resized, size, strict=True))
    return resized, start


def _corners(box: Box) -> tuple[int, int, int, int]:
    """In Pillow's order: left, top, right, bottom."""
    top, left, height, width = box
    return left, top, left + width, top + height
