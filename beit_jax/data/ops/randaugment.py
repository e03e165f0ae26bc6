"""RandAugment as timm does it: `rand-m9-mstd0.5-inc1` and its like, on PIL images.

The same Pillow calls with the same arguments, so that pixels are the same; bicubic,
as the official fine-tuning asks for.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from beit_jax.data.ops import colour

NUMBERS = 4  # uniforms that a layer uses

Fill = tuple[int, int, int]  # the colour of what a turned or moved image leaves empty
Step = tuple[str, float, int]  # one of OPS, magnitude, sign +1 or -1

_TEN = 10  # the magnitude at which the strengths in OPS are reached


class Policy(NamedTuple):
    """How many ops, how likely and how strong."""

    magnitude: int = 10
    layers: int = 2
    probability: float = 0.5  # of each layer
    magnitude_std: float = 0.0  # above 100: magnitudes uniform in [0, magnitude]
    max_magnitude: int = 10

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """timm's string: `rand`, then m, n, p, mstd, mmax and inc1 in any order.

        inc1 must be there: of timm's two sets of ops, only the one that grows with
        the magnitude in every op is written here. (timm reads `inc0` as inc1 too.)
        """
        kind, *sections = text.split("-")
        found = [re.fullmatch(r"([a-z]+)(\d.*)", section) for section in sections]
        given = dict(match.groups() for match in found if match)
        if (
            kind != "rand"
            or len(given) != len(sections)
            or given.pop("inc", None) != "1"
            or not given.keys() <= _SECTIONS.keys()
        ):
            raise ValueError(
                f"randaugment={text!r} must be 'rand', 'inc1' and any of "
                f"{', '.join(_SECTIONS)} with a number, once each, joined by '-': "
                "'rand-m9-mstd0.5-inc1'"
            )
        try:
            settings = [(*_SECTIONS[key], value) for key, value in given.items()]
            policy = cls(**{field: number(value) for field, number, value in settings})
        except ValueError as error:
            raise ValueError(f"randaugment={text!r}: {error}") from error
        if policy.layers < 1 or policy.probability > 1:
            raise ValueError(f"randaugment={text!r} must have n >= 1 and p <= 1")
        return policy


_SECTIONS: dict[str, tuple[str, type]] = {
    "m": ("magnitude", int),
    "n": ("layers", int),
    "p": ("probability", float),
    "mstd": ("magnitude_std", float),
    "mmax": ("max_magnitude", int),
}


def apply(
    image: Image.Image, policy: Policy, u: np.ndarray, fill: Fill = (128, 128, 128)
) -> Image.Image:
    """One random draw of the policy, on an RGB image.

    Args:
      u: (layers, NUMBERS) uniforms.
      fill: levels of what the geometric ops uncover; the images' mean in timm.
    """
    for name, magnitude, sign in steps(policy, u):
        image = op(image, name, magnitude, sign, fill)
    return image


def steps(policy: Policy, u: np.ndarray) -> list[Step]:
    """The ops that (layers, NUMBERS) uniforms choose, those left out left out.

    A layer's uniforms are: which op, with replacement; whether; magnitude; sign.
    """
    names = tuple(OPS)
    return [
        (
            names[int(which * len(names))],
            _magnitude(policy, strength),
            -1 if sign > 0.5 else 1,
        )
        for which, whether, strength, sign in u
        if whether < policy.probability
    ]


def op(
    image: Image.Image,
    name: str,
    magnitude: float,
    sign: int = 1,
    fill: Fill = (128, 128, 128),
) -> Image.Image:
    """One op on an RGB image; `sign` matters to those that have two directions."""
    argument, function = OPS[name]
    return function(image, argument(magnitude / _TEN, sign), fill)


def _magnitude(policy: Policy, u: float) -> float:
    from scipy.special import ndtri  # .2 s: where somebody draws magnitudes

    magnitude = policy.magnitude
    if policy.magnitude_std > 100:
        magnitude *= u
    elif policy.magnitude_std > 0:
        magnitude += policy.magnitude_std * ndtri(u)
    return float(min(max(magnitude, 0.0), policy.max_magnitude))


def _none(level: float, sign: int) -> float:
    return 0.0


def _both_ways(most: float) -> Callable[[float, int], float]:
    return lambda level, sign: sign * (level * most)


def _factor(level: float, sign: int) -> float:
    return max(0.1, 1.0 + sign * (level * 0.9))


def _bits(level: float, sign: int) -> int:
    return 4 - int(level * 4)


def _threshold(level: float, sign: int) -> int:
    return 256 - min(256, int(level * 256))


def _addend(level: float, sign: int) -> int:
    return min(128, int(level * 110))


def _colour(kind: str) -> Callable[[Image.Image, float, Fill], Image.Image]:
    return lambda image, factor, fill: colour.apply(image, [(kind, factor)])


def _sharpness(image: Image.Image, factor: float, fill: Fill) -> Image.Image:
    return ImageEnhance.Sharpness(image).enhance(factor)


def _posterize(image: Image.Image, bits: int, fill: Fill) -> Image.Image:
    """Keeps the upper bits. None at magnitude 10: black, as in Pillow until bits=0
    became an error there, which would end a run of timm's."""
    if bits < 1:
        return Image.new(image.mode, image.size)
    return ImageOps.posterize(image, bits)


def _solarize(image: Image.Image, threshold: int, fill: Fill) -> Image.Image:
    return ImageOps.solarize(image, threshold)


def _solarize_add(image: Image.Image, addend: int, fill: Fill) -> Image.Image:
    """Brightens the darker half of the values."""
    table = [min(255, i + addend) if i < 128 else i for i in range(256)]
    return image.point(table * 3)


def _rotate(image: Image.Image, degrees: float, fill: Fill) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=fill)


def _shear_x(image: Image.Image, factor: float, fill: Fill) -> Image.Image:
    return affine(image, (1, factor, 0, 0, 1, 0), fill)


def _shear_y(image: Image.Image, factor: float, fill: Fill) -> Image.Image:
    return affine(image, (1, 0, 0, factor, 1, 0), fill)


def _translate_x(image: Image.Image, part: float, fill: Fill) -> Image.Image:
    return affine(image, (1, 0, part * image.width, 0, 1, 0), fill)


def _translate_y(image: Image.Image, part: float, fill: Fill) -> Image.Image:
    return affine(image, (1, 0, 0, 0, 1, part * image.height), fill)


def affine(image: Image.Image, matrix: tuple[float, ...], fill: Fill) -> Image.Image:
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        matrix,
        resample=Image.Resampling.BICUBIC,
        fillcolor=fill,
    )


# timm's name -> (magnitude / 10 and sign -> argument, what it does with it).
OPS: dict[str, tuple[Callable[[float, int], float], Callable[..., Image.Image]]] = {
    "AutoContrast": (_none, lambda image, *_: ImageOps.autocontrast(image)),
    "Equalize": (_none, lambda image, *_: ImageOps.equalize(image)),
    "Invert": (_none, lambda image, *_: ImageOps.invert(image)),
    "Rotate": (_both_ways(30.0), _rotate),  # degrees
    "PosterizeIncreasing": (_bits, _posterize),
    "SolarizeIncreasing": (_threshold, _solarize),
    "SolarizeAdd": (_addend, _solarize_add),
    "ColorIncreasing": (_factor, _colour("saturation")),
    "ContrastIncreasing": (_factor, _colour("contrast")),
    "BrightnessIncreasing": (_factor, _colour("brightness")),
    "SharpnessIncreasing": (_factor, _sharpness),
    "ShearX": (_both_ways(0.3), _shear_x),
    "ShearY": (_both_ways(0.3), _shear_y),
    "TranslateXRel": (_both_ways(0.45), _translate_x),  # part of the width
    "TranslateYRel": (_both_ways(0.45), _translate_y),
}
