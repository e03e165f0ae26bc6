"""3-Augment of DeiT III (arXiv:2204.07118): grey, solarised or blurred, one of three.

The calls of deit/augment.py. There a colour jitter of 0.3 follows: set `jitter` with
`jitter_on="device"`, which is done last.
"""

import numpy as np
from PIL import Image, ImageFilter, ImageOps

NUMBERS = 2  # uniforms of an image: which, radius
RADIUS = (0.1, 2.0)  # of the blur, in pixels


def apply(image: Image.Image, u: np.ndarray) -> Image.Image:
    """One of the three, on an RGB image."""
    return _OPS[int(u[0] * len(_OPS))](image, float(u[1]))


def _grey(image: Image.Image, u: float) -> Image.Image:
    return image.convert("L").convert("RGB")


def _solarise(image: Image.Image, u: float) -> Image.Image:
    return ImageOps.solarize(image)


def _blur(image: Image.Image, u: float) -> Image.Image:
    low, high = RADIUS
    return image.filter(ImageFilter.GaussianBlur(low + (high - low) * u))


_OPS = (_grey, _solarise, _blur)
