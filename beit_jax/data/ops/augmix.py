"""AugMix (arXiv:1912.02781): an image mixed with three chains of ops on it.

As timm's AugMixAugment: the ops of RandAugment here, each with a strength between 0 and
the severity. What of the paper looks at three views of an image at once, its
Jensen-Shannon loss, is not here: labels are told of one view.
"""

import numpy as np
from PIL import Image

from beit_jax.data.ops import randaugment
from beit_jax.data.ops.randaugment import Fill, Step

WIDTH = 3  # chains
DEPTH = 3  # ops in a chain, at most
_EACH = 3  # uniforms of an op: which, strength, sign
_CHAIN = 2 + DEPTH * _EACH  # of a chain: weight, depth, ops
NUMBERS = 1 + WIDTH * _CHAIN
# timm's names, in timm's order. What it does to colour, contrast, brightness and
# sharpness is not in the paper, whose tests of robustness have such corruptions.
OPS = (
    "AutoContrast",
    "ColorIncreasing",
    "ContrastIncreasing",
    "BrightnessIncreasing",
    "SharpnessIncreasing",
    "Equalize",
    "Rotate",
    "PosterizeIncreasing",
    "SolarizeIncreasing",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)


def apply(image: Image.Image, severity: int, u: np.ndarray, fill: Fill) -> Image.Image:
    """A random mixture of an RGB image.

    Args:
      severity: 1 to 10, the greatest strength of an op.
      u: (NUMBERS,) uniforms: the mixture's share, then of each chain its weight, its
        depth and its ops.
      fill: levels of what the geometric ops uncover.
    """
    chains = u[1:].reshape(WIDTH, _CHAIN)
    weights = weights_of(chains[:, 0])
    mixed = np.zeros((image.height, image.width, 3), np.float32)
    for weight, chain in zip(weights, chains, strict=True):
        view = image
        for name, strength, sign in steps(severity, chain[1:]):
            view = randaugment.op(view, name, strength, sign, fill)
        mixed += weight * np.asarray(view, np.float32)
    mixture = Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))
    return Image.blend(image, mixture, np.float32(u[0]))  # Beta(1, 1) is uniform


def weights_of(u: np.ndarray) -> np.ndarray:
    """Dirichlet(1, 1, 1) as float32, from uniforms in [0, 1)."""
    drawn = -np.log1p(-u)
    return np.float32(drawn / max(drawn.sum(), np.finfo(float).tiny))


def steps(severity: int, u: np.ndarray) -> list[Step]:
    """The ops of a chain, whose depth is as often 1 as 2 or 3; with replacement."""
    depth = 1 + int(u[0] * DEPTH)
    return [
        (OPS[int(which * len(OPS))], severity * strength, -1 if sign < 0.5 else 1)
        for which, strength, sign in u[1:].reshape(DEPTH, _EACH)[:depth].tolist()
    ]
