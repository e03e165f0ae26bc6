"""Random erasing: which box of an image is to be overwritten with noise.

The noise is N(0, 1) after normalisation, so the step writes it on the device:
`beit_jax.tasks.on_device.erase`.
"""

import math

import numpy as np

TRIES = 10  # random boxes drawn before the image is left as it is
NUMBERS = 2 + 4 * TRIES  # uniforms that `erase_box` and `erase_seed` share

NOTHING = (0, 0, 0, 0)


def erase_box(
    u: np.ndarray,
    height: int,
    width: int,
    probability: float = 0.25,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
) -> tuple[int, int, int, int]:
    """The law of timm's RandomErasing with one box.

    Args:
      u: (NUMBERS,) uniforms: whether; of each try area, aspect, top and left; the last
        is for `erase_seed`.
      height: of the image, as is `width`.
      probability: that something is erased, if a try succeeds.
      area: parts of the image's area between which boxes are uniform.
      aspect: height / width, log-uniform between these.

    Returns:
      top, left, height, width; `NOTHING` when nothing is erased.
    """
    if not u[0] < probability:
        return NOTHING
    low, high = math.log(aspect[0]), math.log(aspect[1])
    for number in range(1, 1 + 4 * TRIES, 4):
        area_u, aspect_u, top_u, left_u = u[number : number + 4]
        pixels = (area[0] + (area[1] - area[0]) * area_u) * height * width
        ratio = math.exp(low + (high - low) * aspect_u)
        h = round(math.sqrt(pixels * ratio))
        w = round(math.sqrt(pixels / ratio))
        if h < height and w < width:  # a box as high or as wide as the image is no box
            return int(top_u * (height - h + 1)), int(left_u * (width - w + 1)), h, w
    return NOTHING


def erase_seed(u: np.ndarray) -> np.uint32:
    """The seed of an example's noise, from the same (NUMBERS,) uniforms."""
    return np.uint32(u[-1] * 2.0**32)
