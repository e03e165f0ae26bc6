"""How images divide into patches, for every network that has some."""

import jax


def check_sides(image: jax.Array, patch_size: int) -> None:
    """Raises ValueError unless patches fill images (B, H, W, C)."""
    height, width = image.shape[1:3]
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"image is {height}x{width}; both sides must be multiples of "
            f"patch_size={patch_size}"
        )


def halvings(patch_size: int) -> int:
    """How often a side is halved until a patch is one pixel.

    Raises:
      ValueError: `patch_size` is no power of two above 1.
    """
    stages = patch_size.bit_length() - 1
    if patch_size < 2 or patch_size != 2**stages:
        raise ValueError(f"patch_size={patch_size} is no power of two above 1")
    return stages
