"""Colour jitter of PIL images: torchvision's ColorJitter without hue, bit for bit.

Every step is PIL's blend of the image with another: black (brightness), a plain grey
(contrast) or its own grey version (saturation). The first two send each of the values
0..255 to another, so they are tables; only saturation has to blend pixels, and only
that keeps other threads from running Python.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from PIL import Image

from beit_jax.data.ops.geometry import crop

NUMBERS = 4  # uniforms that `jitter_steps` uses
KINDS = ("brightness", "contrast", "saturation")

Step = tuple[str, float]  # one of KINDS, factor; a factor of 1 changes nothing

_ORDERS = tuple(itertools.permutations(range(len(KINDS))))
_IDENTITY = bytes(range(256))
_RAMP = Image.frombytes("L", (256, 1), _IDENTITY)


def jitter_steps(strength: float, u: np.ndarray) -> list[Step]:
    """The steps of ColorJitter(strength, strength, strength).

    Args:
      strength: factors are uniform in [max(0, 1 - strength), 1 + strength].
      u: (NUMBERS,) uniforms: the factors of KINDS, then the order.
    """
    if strength < 0:
        raise ValueError(f"strength={strength} of the colour jitter must be >= 0")
    low, high = max(0.0, 1 - strength), 1 + strength
    order = _ORDERS[int(u[3] * len(_ORDERS))]
    return [(KINDS[i], float(low + (high - low) * u[i])) for i in order]


def pack(steps: Sequence[Step]) -> np.ndarray:
    """Steps as (len(steps), 2) float32, number in KINDS and factor of each.

    Batches of these are what `beit_jax.tasks.on_device.jitter` wants.
    """
    return np.array([(KINDS.index(kind), factor) for kind, factor in steps], np.float32)


def apply(image: Image.Image, steps: Sequence[Step]) -> Image.Image:
    """Every step on an RGB image; equals PIL's ImageEnhance."""
    return apply_then_crop(image, steps, None)


def apply_then_crop(
    image: Image.Image, steps: Sequence[Step], box: tuple[int, int, int, int] | None
) -> Image.Image:
    """What cropping the result of `apply` gives, with less work.

    Contrast needs the mean of the whole image. All else looks at one pixel at a time,
    so whatever follows the last mean is done on the crop alone.

    Args:
      image: of mode RGB.
      steps: kinds and factors, in order.
      box: top, left, height, width, within the image; None: no crop.
    """
    box = box or (0, 0, image.height, image.width)
    wholes = [i for i, (kind, _) in enumerate(steps) if kind == "contrast"]
    if not wholes:
        image = crop(image, box)
    table = _IDENTITY  # what is still to be done to `image`
    for i, (kind, factor) in enumerate(steps):
        if kind == "brightness":
            table = table.translate(_blend_table(0, factor))
            continue
        image, table = _look_up(image, table), _IDENTITY
        if kind == "contrast":
            table = _blend_table(_mean_grey(image), factor)
            image = crop(image, box) if i == wholes[-1] else image
        elif kind == "saturation":
            grey = image.convert("L").convert("RGB")
            image = Image.blend(grey, image, factor)
        else:
            raise ValueError(f"no colour step {kind!r}; they are {', '.join(KINDS)}")
    return _look_up(image, table)


def _blend_table(grey: int, factor: float) -> bytes:
    """Where a blend with `grey` sends 0..255.

    PIL itself blends the table, so that its float32 roundings are the same on every
    processor, with fused multiply-add or without.
    """
    return Image.blend(Image.new("L", _RAMP.size, grey), _RAMP, factor).tobytes()


def _look_up(image: Image.Image, table: bytes) -> Image.Image:
    if table == _IDENTITY:
        return image
    return image.point(table * len(image.getbands()))


def _mean_grey(image: Image.Image) -> int:
    counts = np.array(image.convert("L").histogram())
    return int(counts @ np.arange(256) / counts.sum() + 0.5)
