"""How training varies its views, one row a kind.

A row says how many uniforms it draws for an example and what it does with them: colour
steps, other pixels of the model's view, or arrays by which the compiled step augments.
Each row's uniforms are a stream of their own: what one is set to does not change the
others' numbers.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image

from beit_jax.data.ops import (
    augmix,
    colour,
    erasing,
    mixing,
    photometric,
    randaugment,
    three_augment,
    trivialaugment,
)
from beit_jax.data.ops.geometry import Size
from beit_jax.data.settings import Augment

Arrays = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]  # of every array of an example


class Augmentation(NamedTuple):
    """A row of AUGMENTATIONS; what it does not do is None.

    Attributes:
      numbers: settings, shapes -> how many uniforms an example's takes; 0: it is off.
      steps: settings, uniforms -> colour steps; `jitter_on` says of what.
      pixels: settings, uniforms, the model's view (not the tokenizer's) -> another.
      arrays: name -> dtype of what it makes for the compiled step.
      make: settings, uniforms, the view's size -> those of the arrays that are its.
      shared: whether all examples of a batch have the same uniforms.
    """

    numbers: Callable[[Augment, Shapes], int]
    steps: Callable[[Augment, np.ndarray], list[colour.Step]] | None = None
    pixels: Callable[[Augment, np.ndarray, Image.Image], Image.Image] | None = None
    arrays: Mapping[str, type] = {}
    make: Callable[[Augment, np.ndarray, Size], Arrays] | None = None
    shared: bool = False


def active(settings: Augment, shapes: Shapes) -> dict[str, int]:
    """Name -> uniforms of every row that the settings or the shapes ask for."""
    rows = AUGMENTATIONS.items()
    counts = {name: row.numbers(settings, shapes) for name, row in rows}
    return {name: count for name, count in counts.items() if count}


def _jitter(settings: Augment, u: np.ndarray) -> list[colour.Step]:
    return colour.jitter_steps(settings.jitter, u)


_policy = functools.cache(randaugment.Policy.parse)


def _randaugment_numbers(settings: Augment, shapes: Shapes) -> int:
    if not settings.randaugment:
        return 0
    return _policy(settings.randaugment).layers * randaugment.NUMBERS


def _randaugment(settings: Augment, u: np.ndarray, view: Image.Image) -> Image.Image:
    policy = _policy(settings.randaugment)
    rows = u.reshape(policy.layers, -1)
    return randaugment.apply(view, policy, rows, settings.fill)


def _trivial(settings: Augment, u: np.ndarray, view: Image.Image) -> Image.Image:
    return trivialaugment.apply(view, u, settings.fill)


def _augmix(settings: Augment, u: np.ndarray, view: Image.Image) -> Image.Image:
    return augmix.apply(view, settings.augmix, u, settings.fill)


def _erase(settings: Augment, u: np.ndarray, size: Size) -> Arrays:
    box = erasing.erase_box(u, *size, settings.erase)
    return {"erase": np.array(box, np.int32), "erase_seed": erasing.erase_seed(u)}


def _mix(settings: Augment, u: np.ndarray, size: Size) -> Arrays:
    return {"mix": mixing.mix_parameters(u, size, settings.mixup, settings.cutmix)}


AUGMENTATIONS = {
    "jitter": Augmentation(
        numbers=lambda settings, shapes: colour.NUMBERS if settings.jitter else 0,
        steps=_jitter,
        arrays={"jitter": np.float32},
        make=lambda settings, u, size: {"jitter": colour.pack(_jitter(settings, u))},
    ),
    "randaugment": Augmentation(_randaugment_numbers, pixels=_randaugment),
    "trivialaugment": Augmentation(
        numbers=lambda settings, shapes: (
            trivialaugment.NUMBERS * settings.trivialaugment
        ),
        pixels=_trivial,
    ),
    "augmix": Augmentation(
        numbers=lambda settings, shapes: augmix.NUMBERS * (settings.augmix > 0),
        pixels=_augmix,
    ),
    "three_augment": Augmentation(
        numbers=lambda settings, shapes: three_augment.NUMBERS * settings.three_augment,
        pixels=lambda settings, u, view: three_augment.apply(view, u),
    ),
    "photometric": Augmentation(
        numbers=lambda settings, shapes: photometric.NUMBERS * settings.photometric,
        pixels=lambda settings, u, view: photometric.apply(view, photometric.draws(u)),
    ),
    "erase": Augmentation(
        numbers=lambda settings, shapes: erasing.NUMBERS * ("erase" in shapes),
        arrays={"erase": np.int32, "erase_seed": np.uint32},
        make=_erase,
    ),
    "mix": Augmentation(
        numbers=lambda settings, shapes: mixing.NUMBERS * ("mix" in shapes),
        arrays={"mix": np.float32},
        make=_mix,
        shared=True,
    ),
}
