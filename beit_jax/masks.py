"""How many patches a mask hides, said as a number or as a share."""

from collections.abc import Mapping
from typing import Any

from beit_jax.lookup import has_type


def counted(mask: Mapping[str, Any], patches: int) -> dict[str, Any]:
    """`config.data.mask` with its `ratio` of the patches, if any, as `max_patches`.

    Rounded to the nearest number, of wholes where `unit` hides squares of patches.

    Raises:
      ValueError: a ratio beside a number, or one that is no share.
    """
    mask = dict(mask)
    if "ratio" not in mask:
        return mask
    ratio, unit = mask.pop("ratio"), mask.get("unit", 1)
    if "max_patches" in mask:
        raise ValueError(
            f"config.data.mask has ratio={ratio} and "
            f"max_patches={mask['max_patches']}, which say the same; give one of them"
        )
    if not has_type(ratio, float) or not 0 < ratio <= 1:
        raise ValueError(
            f"config.data.mask.ratio={ratio!r} must be above 0 and at most 1: a share "
            "of the patches"
        )
    whole = unit**2 if has_type(unit, int) and unit > 0 else 1
    return mask | {"max_patches": max(round(ratio * patches / whole), 1) * whole}
