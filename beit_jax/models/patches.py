"""How images divide into patches, for every network that has some."""

from collections.abc import Mapping
from typing import Any

import jax

Grid = tuple[int, int]  # patches down and across


def check_sides(image: jax.Array, patch_size: int) -> None:
    """Raises ValueError unless patches fill images (B, H, W, C)."""
    height, width = image.shape[1:3]
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"image is {height}x{width}; both sides must be multiples of "
            f"patch_size={patch_size}"
        )


def joined(patches: jax.Array, patch_size: int) -> jax.Array:
    """(B, h, w, 3 P^2), pixels of a patch row by row -> images (B, h P, w P, 3)."""
    batch, h, w, _ = patches.shape
    x = patches.reshape(batch, h, w, patch_size, patch_size, 3)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, h * patch_size, w * patch_size, 3)


def halvings(patch_size: int) -> int:
    """How often a side is halved until a patch is one pixel.

    Raises:
      ValueError: `patch_size` is no power of two above 1.
    """
    stages = patch_size.bit_length() - 1
    if patch_size < 2 or patch_size != 2**stages:
        raise ValueError(f"patch_size={patch_size} is no power of two above 1")
    return stages


def image_size(model: Mapping[str, Any]) -> tuple[int, int]:
    """A model's (height, width) in pixels.

    Raises:
      ValueError: a size that is none.
    """
    size = model.get("image_size")
    sides = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if not all(_is_length(side) for side in sides):
        raise ValueError(f"config.model.image_size={size!r} must be pixels, >= 1")
    if len(sides) != 2:
        raise ValueError(
            f"config.model.image_size={size!r} must be a side, or height and width"
        )
    return sides


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def size_and_grid(model: Mapping[str, Any]) -> tuple[tuple[int, int], Grid]:
    """A model's (height, width) in pixels, and in patches.

    Raises:
      ValueError: sizes that are none, or do not fit each other.
    """
    size, patch = model.get("image_size"), model.get("patch_size", 16)
    sides = image_size(model)
    if not _is_length(patch):
        raise ValueError(f"config.model.patch_size={patch!r} must be pixels, >= 1")
    if any(side % patch for side in sides):
        fits = [side // patch * patch or patch for side in sides]
        fits = fits[0] if isinstance(size, int) else tuple(fits)
        raise ValueError(
            f"config.model.image_size={size} must be a multiple of patch_size={patch}, "
            f"{fits} for example"
        )
    return sides, (sides[0] // patch, sides[1] // patch)
