"""Tables of positions: what their rows mean, and how one grid's serves another.

Resizing is linear, one matrix for each side of the grid. So the same rules work on
numpy arrays when weights are loaded (in float64) and inside a compiled step.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Grid = tuple[int, int]  # patches down and across
Table = TypeVar("Table", np.ndarray, jax.Array)


def offset_rows(grid: Grid) -> int:
    """Rows of a table of relative positions, three for [CLS] included."""
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3


def embedding_rows(grid: Grid) -> int:
    """Rows of a table of absolute positions, one for [CLS] included."""
    return grid[0] * grid[1] + 1


def relative_position_index(grid: Grid) -> np.ndarray:
    """(1+N, 1+N) rows of the bias table, for [query, key]; token 0 is [CLS].

    Rows count offsets (dy, dx) from (1-h, 1-w) row by row; the last three are
    [CLS] to patch, patch to [CLS] and [CLS] to itself.
    """
    height, width = grid
    y, x = np.divmod(np.arange(height * width), width)
    dy = y[:, None] - y[None, :] + height - 1
    dx = x[:, None] - x[None, :] + width - 1
    rows = offset_rows(grid) - 3
    index = np.empty((height * width + 1,) * 2, np.int32)
    index[1:, 1:] = dy * (2 * width - 1) + dx
    index[0, 1:], index[1:, 0], index[0, 0] = rows, rows + 1, rows + 2
    return index


def sincos(grid: Grid, dim: int) -> np.ndarray:
    """(1, 1+N, dim) float32 positions that are not learned; zeros for [CLS].

    The first half of the features tells the column, the second the row, each by sines
    and cosines of dim / 4 wavelengths. After `util/pos_embed.py` of MAE
    (arXiv:2111.06377); MoCo v3 (arXiv:2104.02057) has them in another order.

    Raises:
      ValueError: `dim` is no multiple of 4.
    """
    if dim % 4:
        raise ValueError(f"dim={dim} must be a multiple of 4 for sin-cos positions")
    rates = 10000.0 ** -np.linspace(0, 1, dim // 4, endpoint=False)
    y, x = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    angles = [np.outer(at, rates) for at in (x, y)]
    patches = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    table = np.pad(np.concatenate(patches, axis=1), ((1, 0), (0, 0)))
    return table[None].astype(np.float32)


def resize_offsets(table: Table, old: Grid, new: Grid) -> Table:
    """(..., rows, A) relative positions of grid `old` -> of grid `new`.

    By the geometric rule of `beit/run_class_finetuning.py`, each side of the grid by
    itself; the rows of [CLS] stay.

    Raises:
      ValueError: rows that are not those of `old`.
    """
    _check(table, offset_rows(old), old)
    sides = [2 * side - 1 for side in old]
    patches, cls = table[..., :-3, :], table[..., -3:, :]
    return _join(_resize(patches, sides, *map(geometric_matrix, old, new)), cls)


def resize_embedding(table: Table, old: Grid, new: Grid) -> Table:
    """(..., rows, D) absolute positions of grid `old` -> of grid `new`, bicubically.

    The row of [CLS] stays. Raises ValueError as `resize_offsets`.
    """
    _check(table, embedding_rows(old), old)
    cls, patches = table[..., :1, :], table[..., 1:, :]
    return _join(cls, _resize(patches, old, *map(bicubic_matrix, old, new)))


def geometric_matrix(old: int, new: int) -> np.ndarray:
    """(2 * new - 1, 2 * old - 1): resizes offsets along a side of `old` patches.

    Growing, the old offsets are spread by `geometric_places` and a cubic spline through
    them is read at the new ones. Shrinking undoes that: the spline goes through the
    old offsets and is read at the places over which growing back would spread the new
    ones. (The official rule cannot shrink.)
    """
    if old == new:
        return np.eye(2 * old - 1)
    places = geometric_places(min(old, new), max(old, new) - 1)
    offsets = np.arange(1.0 - max(old, new), max(old, new))
    return _spline(places, offsets) if old < new else _spline(offsets, places)


def geometric_places(side: int, reach: int) -> np.ndarray:
    """(2 * side - 1,) places in -reach..reach for the offsets of `side` patches.

    Steps grow from 1 at the centre by a constant factor, found by bisection as in the
    official code. That looks between 1.01 and 1.5, and where no factor there brings the
    last offset to `reach` (4 to 6 patches, say) misses the border; here it looks on.
    """
    steps = np.arange(side - 1)
    low, high = 1.01, 1.5
    if np.sum(low**steps) > reach:
        low = 1.0
    if np.sum(high**steps) < reach:
        high = max(high, float(reach))
    while high - low > 1e-6:
        factor = (low + high) / 2
        if np.sum(factor**steps) > reach:
            high = factor
        else:
            low = factor
    places = np.cumsum(factor**steps)
    return np.concatenate([-places[::-1], [0.0], places])


def bicubic_matrix(old: int, new: int) -> np.ndarray:
    """(new, old): `torch.nn.functional.interpolate(mode="bicubic")` along a side.

    That is Keys' kernel with a = -0.75 between pixel centres (align_corners=False),
    edges repeated, not widened where it shrinks (no antialias).
    """
    at = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(at) - 1
    matrix = np.zeros((new, old))
    for tap in range(4):
        column = np.clip(first + tap, 0, old - 1).astype(int)
        d = np.abs(at - first - tap)
        near = 1.25 * d**3 - 2.25 * d**2 + 1
        far = -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
        np.add.at(matrix, (np.arange(new), column), np.where(d <= 1, near, far))
    return matrix


def _spline(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(W, K): a cubic spline through K places read at W; at its ends beyond them."""
    if len(known) == 1:
        return np.ones((len(wanted), 1))
    from scipy.interpolate import make_interp_spline  # .4 s, and rarely needed

    degree = min(3, len(known) - 1)
    spline = make_interp_spline(known, np.eye(len(known)), degree)
    return spline(np.clip(wanted, known[0], known[-1]))


def _resize(rows: Table, sides, down: np.ndarray, across: np.ndarray) -> Table:
    """(..., h * w, D) of a grid with sides (h, w) -> (..., H * W, D)."""
    grid = rows.reshape(*rows.shape[:-2], *sides, rows.shape[-1])
    spec = "yi,xj,...ijd->...yxd"
    if isinstance(rows, np.ndarray):
        grid = np.einsum(spec, down, across, grid, optimize=True).astype(rows.dtype)
    else:
        grid = jnp.einsum(spec, down, across, grid, precision="highest")
    return grid.reshape(*rows.shape[:-2], -1, rows.shape[-1])


def _join(*parts: Table) -> Table:
    xp = np if isinstance(parts[0], np.ndarray) else jnp
    return xp.concatenate(parts, axis=-2)


def _check(table: Table, rows: int, grid: Grid) -> None:
    if table.shape[-2] != rows:
        raise ValueError(
            f"a table of {table.shape[-2]} rows is not for {grid[0]}x{grid[1]} "
            f"patches, which need {rows}; give the grid that it was made for"
        )
