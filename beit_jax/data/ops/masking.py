"""Which patches to hide: blockwise (BEiT, MaskFeat), uniformly random or none.

Masks are drawn after batching: one `while_loop` for a batch costs about as much as
one for an example.
"""

import math
from typing import NamedTuple

import numpy as np

from beit_jax.data.draws import Draw
from beit_jax.data.graph import tf
from beit_jax.ranges import Count, Length, Portion

_TRIES = 10  # for one block, before the mask is left as it is
_TOGETHER = 4  # tries that one pass of the loop makes; 4 was fastest
_WORD_BITS = 62  # of an int64, for whole rows of patches


def blockwise(
    draw: Draw,
    batch: int,
    grid: tuple[int, int] = (14, 14),
    max_patches: Length = 75,
    min_block: Length | None = None,
    max_block: Length | None = None,
    min_aspect: Portion = 0.3,
    exact: bool = False,
) -> tf.Tensor:
    """Hides rectangles until `max_patches` are hidden or ten in a row do not fit.

    Args:
      draw: uniforms of each example; see `place_blocks`. `exact` gives patch p number
        40 * (max_patches + 1) + p, which no block reaches.
      batch: number of masks.
      grid: patches down and across.
      max_patches: upper bound of the count; about a third of masks end below it.
      min_block: smallest area drawn; None: BEiT's 16/75 of `max_patches`, at least 2.
        When fewer patches than this remain, areas lie between the two, as in the
        official code.
      max_block: largest area drawn and largest gain of one block; None: `max_patches`.
      min_aspect: aspects are log-uniform in [min_aspect, 1 / min_aspect].
      exact: patches chosen at random make up what the blocks lack, as in BEiT v2.

    Returns:
      (batch, *grid) bool, True where the patch is hidden.

    BEiT's algorithm 1 as in the official `masking_generator.py`, draw for draw. The
    filling of BEiT v2's has the same law but draws of its own.
    """
    if min_block is None:
        min_block = max(2, round(max_patches * 16 / 75))
    mask, _ = place_blocks(
        draw, batch, grid, max_patches, min_block, max_block, min_aspect
    )
    if not exact:
        return mask
    u = draw(4 * _TRIES * (max_patches + 1), grid[0] * grid[1])
    hidden_first = u - tf.cast(tf.reshape(mask, u.shape), tf.float64)
    return tf.reshape(_lowest(hidden_first, max_patches), mask.shape)


def random(
    draw: Draw,
    batch: int,
    grid: tuple[int, int] = (14, 14),
    max_patches: Length = 75,
    unit: Length = 1,
) -> tf.Tensor:
    """Hides exactly `max_patches` patches, every choice of them equally likely.

    Args:
      draw: uniforms of each example.
      batch: number of masks.
      grid: patches down and across.
      max_patches: how many.
      unit: squares of unit x unit patches are chosen as wholes: MAE has 1, and SimMIM's
        32-pixel squares are 2 on patches of 16 pixels.

    Returns:
      (batch, *grid) bool, True where the patch is hidden.
    """
    _check_count(max_patches, grid)
    _check_unit(unit, max_patches, grid)
    units = grid[0] // unit, grid[1] // unit
    chosen = _lowest(draw(0, units[0] * units[1]), max_patches // unit**2)
    mask = tf.reshape(chosen, (batch, *units))
    if unit == 1:
        return mask
    return tf.repeat(tf.repeat(mask, unit, axis=1), unit, axis=2)


def none(
    draw: Draw, batch: int, grid: tuple[int, int] = (14, 14), max_patches: Count = 0
) -> tf.Tensor:
    """Hides nothing: (batch, *grid) bool False (BEiT's ablation without masking).

    Args:
      max_patches: not used; it may stay in a recipe whose mask is switched off.
    """
    return tf.zeros((batch, *grid), tf.bool)


MASKS = {"blockwise": blockwise, "random": random, "none": none}


class _State(NamedTuple):
    """Masks in the making; B is the batch."""

    mask: tf.Tensor  # (words, B) int64, packed; see _block_tables
    count: tf.Tensor  # (B,) float64, patches hidden
    left: tf.Tensor  # (B,) int32, tries that this pass of the loop finds left
    blocks: tf.Tensor  # (B,) int32, rectangles placed


def place_blocks(
    draw: Draw,
    batch: int,
    grid: tuple[int, int],
    max_patches: int,
    min_block: int,
    max_block: int | None,
    min_aspect: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The masks of `blockwise` before filling, and how many rectangles made each.

    Try t uses numbers 4t ... 4t + 3 for the block's area, aspect, top and left. All
    that does not depend on the blocks before is computed for several tries at once:
    what the loop costs is mostly its number of ops.

    Returns:
      (batch, *grid) bool, True where the patch is hidden, and (batch,) int32.
    """
    _check_count(max_patches, grid)
    _check_width(grid)
    lowest, highest = math.log(min_aspect), -math.log(min_aspect)
    rows, columns = (tf.constant(table) for table in _block_tables(grid))
    sides = tf.constant(grid, tf.float64)[:, None]

    def unfinished(_, state):
        return tf.reduce_any((state.count < max_patches) & (state.left > 0))

    def some_tries(first, state):
        u = tf.transpose(draw(4 * first, 4 * _TOGETHER))
        u = tf.reshape(u, (_TOGETHER, 4, batch))
        aspect = tf.exp(lowest + (highest - lowest) * u[:, 1])
        aspect = tf.stack([aspect, 1 / aspect], axis=1)
        # The area is min_block + (room - min_block) * u, hence the squared height and
        # width, (2, B), are base + slope * room.
        slope = u[:, :1] * aspect
        base = min_block * (aspect - slope)
        drawn = (tf.unstack(x) for x in (base, slope, u[:, 2:]))
        for attempt, (base, slope, place) in enumerate(zip(*drawn, strict=True)):
            room = max_patches - state.count
            if max_block is not None:
                room = tf.minimum(room, max_block)
            # tf.round goes to even at halves, as Python's round does.
            size = tf.minimum(tf.round(tf.sqrt(base + slope * room)), sides)
            corner = tf.floor(place * ((sides + 1) - size))
            index = tf.cast(size * (sides + 1) + corner, tf.int32)
            block = tf.gather(rows, index[0], axis=1) & tf.gather(columns, index[1])
            state = _with_block(state, block, room, attempt)
        return first + _TOGETHER, state._replace(left=state.left - _TOGETHER)

    none = tf.zeros([batch], tf.int32)
    empty = tf.zeros([rows.shape[0], batch], tf.int64)
    start = _State(empty, tf.cast(none, tf.float64), none + _TRIES, none)
    _, state = tf.while_loop(unfinished, some_tries, (tf.constant(0), start))
    return _unpack(state.mask, grid), state.blocks


def _with_block(
    state: _State, block: tf.Tensor, room: tf.Tensor, attempt: int
) -> _State:
    """Adds the packed block where it hides at least 1 and at most `room` patches more.

    `attempt` counts from the start of the pass, as `state.left` does.
    """
    hidden = state.mask | block
    bits = tf.raw_ops.PopulationCount(x=hidden)
    count = tf.reduce_sum(tf.cast(bits, tf.float64), axis=0)
    gain = count - state.count
    fits = (gain > 0) & (gain <= room) & (state.left > attempt)
    return _State(
        tf.where(fits, hidden, state.mask),
        tf.where(fits, count, state.count),
        tf.where(fits, attempt + 1 + _TRIES, state.left),
        state.blocks + tf.cast(fits, tf.int32),
    )


def _lowest(scores: tf.Tensor, count: int) -> tf.Tensor:
    """(B, patches) -> bool of that shape, True at the `count` lowest scores of each."""
    rank = tf.argsort(tf.argsort(scores))
    return rank < count


# A mask is packed into words of int64: each holds as many whole rows of patches as fit
# into 62 bits, patch x of its row y at bit y * width + x. A mask of 14x14 is 4 words,
# so that a few ops set, join and count it. The batch is the last axis: ops on a vector
# for the batch and ops on words then run along memory.


def _block_tables(grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """What the rows, and what the columns, of a block cover; the block is their `&`.

    Returns:
      (words, (height + 1)**2) and ((width + 1)**2,) int64, packed, at index
      size * (side + 1) + corner. Nothing is covered by a size of the whole side,
      which the official code refuses, or by corners that the size does not allow.
    """
    height, width = grid
    per_word = _rows_per_word(grid)
    first_bits = 1 << width * np.arange(per_word)
    rows = _covered(height)
    rows = np.pad(rows, ((0, 0), (0, -height % per_word)))
    rows = rows.reshape(len(rows), -1, per_word) @ (first_bits * ((1 << width) - 1))
    columns = _covered(width) @ (1 << np.arange(width)) * first_bits.sum()
    return rows.T, columns


def _covered(side: int) -> np.ndarray:
    """((side + 1)**2, side) int64, 1 where [corner, corner + size) covers a place."""
    size, corner, place = np.ogrid[: side + 1, : side + 1, :side]
    inside = (corner <= place) & (place < corner + size)
    inside &= (size < side) & (corner + size <= side)
    return inside.reshape(-1, side).astype(np.int64)


def _unpack(mask: tf.Tensor, grid: tuple[int, int]) -> tf.Tensor:
    """(words, B) packed -> (B, *grid) bool."""
    height, width = grid
    bits = tf.constant(1 << np.arange(_rows_per_word(grid) * width))
    cells = tf.transpose(mask)[..., None] & bits > 0
    return tf.reshape(cells, (mask.shape[1], -1, width))[:, :height]


def _rows_per_word(grid: tuple[int, int]) -> int:
    return min(_WORD_BITS // grid[1], grid[0])


def _check_count(max_patches: int, grid: tuple[int, int]) -> None:
    if not 0 < max_patches <= grid[0] * grid[1]:
        raise ValueError(
            f"max_patches={max_patches} must be in 1..{grid[0] * grid[1]}, the number "
            f"of patches in a {grid[0]}x{grid[1]} grid"
        )


def _check_width(grid: tuple[int, int]) -> None:
    if grid[1] > _WORD_BITS:
        raise ValueError(
            f"a {grid[0]}x{grid[1]} grid is too wide; blockwise masks are at most "
            f"{_WORD_BITS} patches across. Take larger patches, smaller images or "
            "random masks"
        )


def _check_unit(unit: int, max_patches: int, grid: tuple[int, int]) -> None:
    if unit < 1 or grid[0] % unit or grid[1] % unit:
        raise ValueError(
            f"unit={unit} must divide both sides of the {grid[0]}x{grid[1]} grid of "
            f"patches; a divisor of {math.gcd(*grid)} does"
        )
    if max_patches % unit**2:
        below = max_patches // unit**2 * unit**2
        nearest = f"{below} or {below + unit**2}" if below else f"{unit**2}"
        raise ValueError(
            f"max_patches={max_patches} must be a multiple of {unit**2}, the patches "
            f"in a unit of {unit}x{unit}; take {nearest}"
        )
