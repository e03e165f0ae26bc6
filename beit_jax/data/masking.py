"""Which patches to hide: blockwise (BEiT) or uniformly random, for a whole batch.

Masks are drawn after batching: one `while_loop` for a batch costs about as much as
one for an example.
"""

import math

import tensorflow as tf

from beit_jax.data.draws import Draw

_TRIES = 10  # for one block, before the mask is left as it is
_MAX_WIDTH = 62  # bits of an int64 that a row of patches may use


def blockwise(
    draw: Draw,
    batch: int,
    grid: tuple[int, int] = (14, 14),
    max_patches: int = 75,
    min_block: int = 16,
    max_block: int | None = None,
    min_aspect: float = 0.3,
) -> tf.Tensor:
    """Hides rectangles until `max_patches` are hidden or ten in a row do not fit.

    Args:
      draw: uniforms of each example; try t uses numbers 4t ... 4t + 3 for the block's
        area, aspect, top and left.
      batch: number of masks.
      grid: patches down and across.
      max_patches: upper bound of the count; about a third of masks end below it.
      min_block: smallest area drawn. When fewer patches than this remain, areas lie
        between the two, as in the official code.
      max_block: largest area drawn and largest gain of one block; None: `max_patches`.
      min_aspect: aspects are log-uniform in [min_aspect, 1 / min_aspect].

    Returns:
      (batch, *grid) bool, True where the patch is hidden.

    BEiT's algorithm 1 as in the official `masking_generator.py`, draw for draw.
    """
    _check(max_patches, grid)
    limit = max_patches if max_block is None else max_block
    aspects = math.log(min_aspect), -math.log(min_aspect)

    def unfinished(count, failures):
        return (count < max_patches) & (failures < _TRIES)

    def step(attempt, mask, count, failures):
        room = tf.minimum(max_patches - count, limit)
        u = draw(4 * attempt, 4)
        h, w = _block_size(u[:, 0], u[:, 1], min_block, room, aspects)
        hidden = mask | _block(u[:, 2], u[:, 3], h, w, grid)
        gain = _count(hidden) - count
        fits = (h < grid[0]) & (w < grid[1]) & (gain > 0) & (gain <= room)
        fits &= unfinished(count, failures)
        return (
            attempt + 1,
            tf.where(fits[:, None], hidden, mask),
            tf.where(fits, count + gain, count),
            tf.where(fits, 0, failures + 1),
        )

    zeros = tf.zeros([batch], tf.int32)
    _, mask, _, _ = tf.while_loop(
        lambda attempt, mask, *progress: tf.reduce_any(unfinished(*progress)),
        step,
        (tf.constant(0), tf.zeros([batch, grid[0]], tf.int64), zeros, zeros),
    )
    return _unpack(mask, grid[1])


def random(
    draw: Draw, batch: int, grid: tuple[int, int] = (14, 14), max_patches: int = 75
) -> tf.Tensor:
    """Hides exactly `max_patches` patches, every choice of them equally likely.

    Returns:
      (batch, *grid) bool, True where the patch is hidden.
    """
    _check(max_patches, grid)
    order = tf.argsort(draw(0, grid[0] * grid[1]))
    rank = tf.argsort(order)
    return tf.reshape(rank < max_patches, (batch, *grid))


MASKS = {"blockwise": blockwise, "random": random}


# A row of patches is an int64, patch x its bit x: whole rows are set, joined and
# counted at once, two to four times as fast as with one bool a patch.


def _block_size(
    area_u: tf.Tensor,
    aspect_u: tf.Tensor,
    min_area: int,
    max_area: tf.Tensor,
    aspects: tuple[float, float],
) -> tuple[tf.Tensor, tf.Tensor]:
    """Two uniforms (B,) -> height and width of a block, (B,) int32."""
    area = min_area + (tf.cast(max_area, tf.float64) - min_area) * area_u
    aspect = tf.exp(aspects[0] + (aspects[1] - aspects[0]) * aspect_u)
    # tf.round goes to even at halves, as Python's round does.
    height = tf.round(tf.sqrt(area * aspect))
    width = tf.round(tf.sqrt(area / aspect))
    return tf.cast(height, tf.int32), tf.cast(width, tf.int32)


def _block(
    top_u: tf.Tensor,
    left_u: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
    grid: tuple[int, int],
) -> tf.Tensor:
    """The block of that size at a random place, (B, grid height) packed rows.

    Of no meaning where the block does not fit into the grid.
    """
    top = _integer_below(top_u, grid[0] - height + 1)
    left = tf.maximum(_integer_below(left_u, grid[1] - width + 1), 0)
    width, left = (tf.cast(tf.minimum(x, _MAX_WIDTH), tf.int64) for x in (width, left))
    ones = tf.bitwise.left_shift(tf.ones_like(width), width) - 1
    row = tf.bitwise.left_shift(ones, left)[:, None]
    offset = tf.range(grid[0]) - top[:, None]
    return tf.where((offset >= 0) & (offset < height[:, None]), row, 0)


def _integer_below(u: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
    """Uniform in [0, 1) -> uniform integer in [0, stop)."""
    return tf.cast(u * tf.cast(stop, tf.float64), tf.int32)


def _count(mask: tf.Tensor) -> tf.Tensor:
    """(B, grid height) packed rows -> (B,) int32, patches hidden."""
    bits = tf.raw_ops.PopulationCount(x=mask)
    return tf.reduce_sum(tf.cast(bits, tf.int32), axis=1)


def _unpack(mask: tf.Tensor, width: int) -> tf.Tensor:
    """(B, grid height) packed rows -> (B, grid height, width) bool."""
    shifted = tf.bitwise.right_shift(mask[..., None], tf.range(width, dtype=tf.int64))
    return shifted & 1 > 0


def _check(max_patches: int, grid: tuple[int, int]) -> None:
    if not 0 < max_patches <= grid[0] * grid[1]:
        raise ValueError(
            f"max_patches={max_patches} must be in 1..{grid[0] * grid[1]}, the number "
            f"of patches in a {grid[0]}x{grid[1]} grid"
        )
    if grid[1] > _MAX_WIDTH:
        raise ValueError(
            f"a {grid[0]}x{grid[1]} grid is too wide; masks are at most "
            f"{_MAX_WIDTH} patches across"
        )
