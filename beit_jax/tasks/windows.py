"""A network on windows that slide over pictures, and what it says where they overlap.

As mmsegmentation's slide_inference: windows row by row, `stride` apart, the last of a
row or column shifted back inside; where several see a pixel their logits are averaged.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
Size = tuple[int, int]
Net = Callable[[Array], Array]  # (N, h, w, 3) -> logits (N, h, w, C)


class Axis(NamedTuple):
    """The windows along an axis of pictures of several sizes.

    Attributes:
      pixels: (G,) int32, of each picture.
      crop: of a window.
      stride: from one window to the next.
    """

    pixels: Array
    crop: int
    stride: int

    @property
    def count(self) -> Array:
        """(G,) windows."""
        beyond = jnp.maximum(self.pixels - self.crop + self.stride - 1, 0)
        return beyond // self.stride + 1

    def start(self, number: Array) -> Array:
        """(G, ...) first pixels of windows (G, ...)."""
        last = jnp.maximum(self.pixels - self.crop, 0)
        return jnp.minimum(number * self.stride, last[:, None])

    def cover(self, length: int) -> Array:
        """(G, length) float32, how many windows see each pixel."""
        most = max(length - self.crop + self.stride - 1, 0) // self.stride + 1
        number = jnp.arange(most)
        start = self.start(jnp.broadcast_to(number, (len(self.pixels), most)))
        there = number < self.count[:, None]
        place = jnp.arange(length)[:, None]
        seen = (place >= start[:, None]) & (place < start[:, None] + self.crop)
        return jnp.sum(seen & there[:, None], axis=-1, dtype=jnp.float32)


def slide(
    net: Net, images: Array, sizes: Array, crop: Size, stride: Size, at_once: int
) -> Array:
    """Logits (G, H, W, C) of pictures at the top left of arrays (G, H, W, 3).

    Args:
      sizes: (G, 2) int32, height and width of each picture.
      crop: of a window, at most (H, W); a picture that is smaller is seen with what
        is beside it.
      at_once: windows of a picture that the network sees together.
    """
    shape = images.shape[1:3]
    crop = tuple(min(c, whole) for c, whole in zip(crop, shape, strict=True))
    rows, columns = (Axis(sizes[:, i], crop[i], stride[i]) for i in (0, 1))
    total = rows.count * columns.count  # (G,)

    def windows(begin: Array) -> tuple[Array, Array, Array]:
        number = jnp.broadcast_to(begin + jnp.arange(at_once), (len(images), at_once))
        top = rows.start(number // columns.count[:, None])
        left = columns.start(number % columns.count[:, None])
        return top, left, number < total[:, None]

    def look(begin: Array) -> tuple[Array, ...]:
        top, left, there = windows(begin)
        seen = jax.vmap(jax.vmap(_cut, (None, 0, 0, None)), (0, 0, 0, None))(
            images, top, left, crop
        )
        made = net(seen.reshape(-1, *seen.shape[2:]))
        made = made.reshape(*seen.shape[:4], -1)
        return jnp.where(there[..., None, None, None], made, 0), top, left

    def add(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        begin, sums = carry
        return begin + at_once, jax.vmap(_paste)(sums, *look(begin))

    classes = jax.eval_shape(look, 0)[0].shape[-1]
    start = jnp.zeros((len(images), *shape, classes))
    most = jnp.max(total)
    _, sums = jax.lax.while_loop(lambda c: c[0] < most, add, (jnp.int32(0), start))
    cover = rows.cover(shape[0])[:, :, None] * columns.cover(shape[1])[:, None]
    return sums / jnp.maximum(cover, 1)[..., None]


def _cut(image: Array, top: Array, left: Array, crop: Size) -> Array:
    return jax.lax.dynamic_slice(image, (top, left, 0), (*crop, image.shape[-1]))


def _paste(sums: Array, made: Array, top: Array, left: Array) -> Array:
    """Adds windows (n, h, w, C) to (H, W, C), one after the other."""

    def one(number: int, sums: Array) -> Array:
        at = top[number], left[number], 0
        old = jax.lax.dynamic_slice(sums, at, made.shape[1:])
        return jax.lax.dynamic_update_slice(sums, old + made[number], at)

    return jax.lax.fori_loop(0, len(made), one, sums)
