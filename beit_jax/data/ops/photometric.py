"""Photometric distortion of mmsegmentation (and SSD before it): its order and draws.

Brightness, contrast, saturation and hue, each half of the time and each cut to whole
levels; contrast is second or last. Hue and saturation are computed without rounding
HSV, which OpenCV does: so pixels differ from mmsegmentation's by half a level on
average, and by 4 at most on recorded images.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

NUMBERS = 9  # uniforms that a distortion takes
_BRIGHTNESS = 32  # levels
_FACTORS = 0.5, 1.5  # of contrast and saturation
_HUE = 18  # steps of 2 degrees


class Draws(NamedTuple):
    """What is done to an image; None: it is left out."""

    brightness: float | None  # levels that are added
    contrast: float | None  # factor
    contrast_first: bool  # before saturation and hue
    saturation: float | None  # factor
    hue: int | None  # steps of 2 degrees


def draws(u: np.ndarray) -> Draws:
    """(NUMBERS,) uniforms -> what to do."""
    low, high = _FACTORS
    does = u[[0, 3, 5, 7]] < 0.5
    values = (
        _BRIGHTNESS * (2 * u[1] - 1),
        low + (high - low) * u[4],
        low + (high - low) * u[6],
        int(np.floor(2 * _HUE * u[8])) - _HUE,
    )
    brightness, contrast, saturation, hue = (
        value if on else None for on, value in zip(does, values, strict=True)
    )
    return Draws(brightness, contrast, bool(u[2] < 0.5), saturation, hue)


def apply(view: Image.Image, what: Draws) -> Image.Image:
    """Another image of the same size, RGB."""
    pixels = np.asarray(view).transpose(2, 0, 1).astype(np.float32, order="C")
    if what.brightness is not None:
        pixels = _levels(pixels + np.float32(what.brightness))
    if what.contrast is not None and what.contrast_first:
        pixels = _levels(pixels * np.float32(what.contrast))
    if what.saturation is not None:
        pixels = _saturated(pixels, np.float32(what.saturation))
    if what.hue is not None:
        pixels = _turned(pixels, what.hue)
    if what.contrast is not None and not what.contrast_first:
        pixels = _levels(pixels * np.float32(what.contrast))
    return Image.fromarray(pixels.astype(np.uint8).transpose(1, 2, 0).copy())


def _levels(pixels: np.ndarray) -> np.ndarray:
    return np.floor(np.clip(pixels, 0, 255))


def _saturated(pixels: np.ndarray, factor: np.float32) -> np.ndarray:
    """With the saturation times the factor, at most 1, and the same hue and value."""
    value, chroma = _value_and_chroma(pixels)
    # The saturation is chroma / value: it is 1 once the chroma is the value.
    factor = np.minimum(factor, value / np.maximum(chroma, 1))
    return np.rint(value - (value - pixels) * factor)


def _turned(pixels: np.ndarray, steps: int) -> np.ndarray:
    """With the hue turned by steps of 2 degrees, and the same saturation and value."""
    red, green, blue = pixels
    value, chroma = _value_and_chroma(pixels)
    some = np.maximum(chroma, 1)
    hue = np.where(
        value == red,
        (green - blue) / some,
        np.where(value == green, 2 + (blue - red) / some, 4 + (red - green) / some),
    )  # in sixths of a turn, from -1 to 5
    hue += np.float32(steps / 30)
    made = np.empty_like(pixels)
    for channel, offset in enumerate((5, 3, 1)):
        k = hue + np.float32(offset)
        k -= 6 * np.floor(k / 6)
        made[channel] = value - chroma * np.clip(np.minimum(k, 4 - k), 0, 1)
    return np.rint(made)


def _value_and_chroma(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    red, green, blue = pixels
    value = np.maximum(np.maximum(red, green), blue)
    return value, value - np.minimum(np.minimum(red, green), blue)
