"""What images go through before a network, in the words of our evaluation."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from beit_jax.checkpoints.foreign.rules import Undecided
from beit_jax.models.pixels import PIXEL_SPACES

# Shares that others write down too; of two that give the same sizes, one of these.
SHARES = (1.0, 224 / 256, 0.9, 0.95)


class Preparation(NamedTuple):
    """Of evaluation's images."""

    pixels: str  # one of PIXEL_SPACES
    interpolation: str
    frame: dict[str, Any]  # as data.eval_frame
    notes: tuple[str, ...] = ()


def centre(crop_pct: float = 1.0) -> dict[str, Any]:
    return {"name": "centre", "crop_pct": crop_pct}


def whole(crop_pct: float = 1.0) -> dict[str, Any]:
    return {"name": "whole", "crop_pct": crop_pct}


def fit(fill: Sequence[int] = (0, 0, 0), align: str = "centre") -> dict[str, Any]:
    return {"name": "fit", "align": align, "fill": tuple(fill)}


def share(view: int, resized: int, rounding: Callable[[float], int]) -> float:
    """The crop_pct with which a frame resizes images to `resized` for a view.

    Args:
      rounding: of the frame, from view / crop_pct: int for centre, round for whole.
    """
    for crop_pct in SHARES:
        if rounding(view / crop_pct) == resized:
            return crop_pct
    exact = view / resized
    # What comes out short of a whole number would be cut to the one before.
    return exact if rounding(view / exact) == resized else view / (resized + 1e-6)


def level(mean: Sequence[float]) -> tuple[int, ...]:
    """The colour that a network sees as zeros."""
    return tuple(round(255 * value) for value in mean)


def space(mean: Sequence[float], std: Sequence[float]) -> str:
    """The pixel space that has this mean and deviation."""
    want = (*mean, *std)
    for name, known in PIXEL_SPACES.items():
        have = (*known.mean, *known.std)
        if len(want) == 6 and max(map(_distance, have, want)) < 1e-6:
            return name
    raise Undecided(
        f"images are to have mean {tuple(mean)} and deviation {tuple(std)}, which no "
        f"pixel space has; name the nearest by --pixels: {', '.join(PIXEL_SPACES)}"
    )


def _distance(one: float, other: float) -> float:
    return abs(one - other)
