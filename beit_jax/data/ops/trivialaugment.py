"""TrivialAugment, wide: one op an image, of any strength (arXiv:2103.10158).

The ops, their ranges and their 31 strengths are those of torchvision's
TrivialAugmentWide on PIL images, so that pixels are the same; bicubic, as RandAugment
here.
"""

import numpy as np
from PIL import Image

from beit_jax.data.ops import randaugment
from beit_jax.data.ops.randaugment import Fill, affine

NUMBERS = 3  # uniforms of an image: which op, strength, sign
BINS = 31


def _linear(last: float, first: float = 0.0) -> np.ndarray:
    """torch.linspace in float32, whose 16 pixels are 15.999999: moved by 15."""
    step = float(np.float32((last - first) / (BINS - 1)))
    number = np.arange(BINS)
    up, down = first + step * number, last - step * (BINS - 1 - number)
    return np.where(number < BINS // 2, up, down).astype(np.float32)


_BITS = 8 - np.round(np.arange(BINS) / ((BINS - 1) / 6))
_NONE = np.zeros(BINS)

# torchvision's name -> strengths, and whether half of them are negative.
SPACE: dict[str, tuple[np.ndarray, bool]] = {
    "Identity": (_NONE, False),
    "ShearX": (_linear(0.99), True),
    "ShearY": (_linear(0.99), True),
    "TranslateX": (_linear(32), True),  # pixels
    "TranslateY": (_linear(32), True),
    "Rotate": (_linear(135), True),  # degrees
    "Brightness": (_linear(0.99), True),
    "Color": (_linear(0.99), True),
    "Contrast": (_linear(0.99), True),
    "Sharpness": (_linear(0.99), True),
    "Posterize": (_BITS, False),
    "Solarize": (_linear(0.0, 255.0), False),
    "AutoContrast": (_NONE, False),
    "Equalize": (_NONE, False),
}


def apply(image: Image.Image, u: np.ndarray, fill: Fill) -> Image.Image:
    """One random op on an RGB image.

    Args:
      u: (NUMBERS,) uniforms.
      fill: levels of what the geometric ops uncover.
    """
    names = tuple(SPACE)
    name = names[int(u[0] * len(names))]
    strengths, signed = SPACE[name]
    strength = float(strengths[int(u[1] * BINS)])
    return op(image, name, -strength if signed and u[2] < 0.5 else strength, fill)


def op(image: Image.Image, name: str, strength: float, fill: Fill) -> Image.Image:
    """One op of SPACE with its strength, sign and all."""
    if name == "Identity":
        return image
    if name == "TranslateX":
        return affine(image, (1, 0, -int(strength), 0, 1, 0), fill)
    if name == "TranslateY":
        return affine(image, (1, 0, 0, 0, 1, -int(strength)), fill)
    their, argument = name, strength
    if name in ("Brightness", "Color", "Contrast", "Sharpness"):
        their, argument = f"{name}Increasing", 1 + strength
    elif name in ("Posterize", "Solarize"):
        their = f"{name}Increasing"
        argument = int(strength) if name == "Posterize" else strength
    return randaugment.OPS[their][1](image, argument, fill)
