"""Resizing of pictures whose sizes are known on the device alone.

A picture lies at the top left of an array that may be larger: its size is data, the
array's shape is not, so that one program does for pictures of all sizes. Resizing is a
matrix an axis, whose rows say what of the old pixels makes a new one.
"""

import functools

import jax
import jax.numpy as jnp

Array = jax.Array
Size = tuple[int, int]


def matrix(
    places: Array,
    before: Array,
    after: Array,
    count: int,
    mirrored: Array | bool = False,
    kind: str = "linear",
) -> Array:
    """What of an axis' old pixels makes the new ones, (R, count) float32.

    Args:
      places: (R,) int, numbers of new pixels; those that are none get what is next.
      before, after: old and new pixels of the axis that there are, scalars.
      count: old pixels that the array has.
      mirrored: count the new pixels from the other end.
      kind: "linear" between the centres of two pixels (PyTorch's bilinear with
        align_corners=False, OpenCV's); "area", the same with a triangle as wide as the
        pixels that shrink (Pillow's BILINEAR); "nearest".
    """
    places = jnp.where(mirrored, after - 1 - places, places)
    ratio = before / after
    source = (places + 0.5) * ratio - 0.5
    pixels = jnp.arange(count)
    if kind == "nearest":
        nearest = jnp.clip(jnp.floor(source + 0.5), 0, before - 1)
        return (pixels == nearest[:, None]).astype(jnp.float32)
    source = jnp.clip(source, 0, before - 1)[:, None]
    width = jnp.maximum(ratio, 1) if kind == "area" else 1
    weights = jnp.maximum(1 - jnp.abs(pixels - source) / width, 0) * (pixels < before)
    return weights / weights.sum(axis=1, keepdims=True)


def resize(values: Array, down: Array, across: Array) -> Array:
    """Pictures (G, H, W, C) by matrices (G, R, H), (G, K, W) -> (G, R, K, C)."""
    exact = functools.partial(jnp.einsum, precision="highest")
    return exact("gkw,grwc->grkc", across, exact("grh,ghwc->grwc", down, values))


def bilinear(values: Array, size: Size) -> Array:
    """(B, h, w, C) -> (B, *size, C) float32, all of it; as "linear"."""
    shape = (len(values), *size, values.shape[-1])
    return jax.image.resize(
        values.astype(jnp.float32), shape, "linear", antialias=False
    )
