"""Masks: the official generator's draws and statistics, exact counts, errors."""

import numpy as np
import pytest
import tensorflow as tf

from beit_jax.data import draws
from beit_jax.data.ops import masking
from tests.shared import shared_path

KINDS = [
    ("blockwise", {}),
    ("blockwise", {"exact": True}),
    ("random", {}),
    ("random", {"unit": 2}),
]


def some_draw(first, count):
    return draws.stream(0, "test", tf.range(first, first + count, dtype=tf.int64))


def some_masks(kind, first, count, **settings):
    return masking.MASKS[kind](some_draw(first, count), count, **settings).numpy()


def test_the_smallest_block_is_by_default_a_fifth_of_the_mask():
    for most, least in ((75, 16), (20, 4), (6, 2), (1, 2)):
        settings = {"grid": (14, 14), "max_patches": most}
        made = some_masks("blockwise", 0, 20, **settings)
        asked = some_masks("blockwise", 0, 20, **settings, min_block=least)
        np.testing.assert_array_equal(made, asked)


def test_none_hides_nothing():
    made = some_masks("none", 0, 3, grid=(2, 5), max_patches=6)
    assert made.shape == (3, 2, 5) and made.dtype == bool and not made.any()


def official_stream(arrays):
    """The recorded draws as (50, tries, 4) uniforms, and the masks they gave.

    An official try draws area and aspect, and only if the block fits top and left.
    """
    offsets = arrays["stream_v1/stream_offsets"]
    kind, u = arrays["stream_v1/stream_kind"], arrays["stream_v1/stream_u"].copy()
    integer = kind == 1
    low, high, value = (
        arrays[f"stream_v1/stream_{name}"][integer] for name in ("lo", "hi", "value")
    )
    u[integer] = (value - low + 0.5) / (high - low + 1)
    tries = np.zeros((len(offsets) - 1, 100, 4))
    for mask, (begin, end) in enumerate(zip(offsets[:-1], offsets[1:], strict=True)):
        attempt, at = 0, begin
        while at < end:
            drawn = 4 if at + 2 < end and integer[at + 2] else 2
            tries[mask, attempt, :drawn] = u[at : at + drawn]
            attempt, at = attempt + 1, at + drawn
    return tries, arrays["stream_v1/masks"]


def test_blockwise_repeats_the_official_masks_from_the_official_draws():
    tries, want = official_stream(np.load(shared_path("oracles/masking/arrays.npz")))
    numbers = tf.constant(tries.reshape(len(tries), -1))

    def draw(first, count):
        return numbers[:, first : first + count]

    np.testing.assert_array_equal(masking.blockwise(draw, len(tries)), want)


@pytest.fixture(scope="module")
def placed():
    """20,000 masks as in BEiT v1, and how many blocks made each."""
    draw = some_draw(0, 20_000)
    masks, blocks = masking.place_blocks(draw, 20_000, (14, 14), 75, 16, None, 0.3)
    return masks.numpy(), blocks.numpy()


def boundary(masks):
    """Mean number of neighbours of which one is hidden."""
    across = (masks[:, 1:] != masks[:, :-1]).sum((1, 2))
    return (across + (masks[:, :, 1:] != masks[:, :, :-1]).sum((1, 2))).mean()


def corners(masks):
    return masks[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean()


def test_blockwise_has_the_statistics_of_200k_official_masks(placed):
    masks, blocks = placed
    counts = masks.sum((1, 2))
    assert counts.max() == 75
    assert abs(counts.mean() - 74.472) < 0.03
    assert abs((counts == 75).mean() - 0.664) < 0.015
    assert abs(masks[:, 5:9, 5:9].mean() - 0.6956) < 0.01
    assert abs(corners(masks) - 0.042) < 0.006
    assert abs(boundary(masks) - 40.06) < 0.25
    assert abs(blocks.mean() - 4.116) < 0.04


def test_blockwise_hides_each_patch_as_often_as_the_official_code(placed):
    want = np.load(shared_path("oracles/masking/arrays.npz"))["v1_14_75/cell_prob"]
    assert np.abs(placed[0].mean(0) - want).max() < 0.02


def test_blockwise_has_the_statistics_of_official_7x7_masks():
    draw = some_draw(0, 20_000)
    masks, blocks = masking.place_blocks(draw, 20_000, (7, 7), 20, 4, None, 0.3)
    masks, counts = masks.numpy(), masks.numpy().sum((1, 2))
    arrays = np.load(shared_path("oracles/masking/arrays.npz"))
    assert counts.max() == 20
    assert abs(counts.mean() - 19.968) < 0.01
    assert abs((counts == 20).mean() - 0.9696) < 0.008
    assert abs(boundary(masks) - 18.32) < 0.2
    assert abs(blocks.numpy().mean() - 3.56) < 0.06
    assert np.abs(masks.mean(0) - arrays["v1_7_20/cell_prob"]).max() < 0.03


def test_blockwise_has_the_statistics_of_maskfeat():
    masks = some_masks("blockwise", 0, 20_000, max_patches=78, min_block=15)
    assert masks.sum((1, 2)).max() == 78
    assert abs(masks.sum((1, 2)).mean() - 77.56) < 0.04
    assert abs(masks[:, 5:9, 5:9].mean() - 0.713) < 0.01
    assert abs(corners(masks) - 0.045) < 0.006


@pytest.mark.slow
def test_200k_masks_cannot_be_told_from_200k_official_ones():
    official = np.load(shared_path("oracles/masking/official_v1_200k.npz"))
    counts, cells = np.zeros(77), np.zeros((14, 14))
    for first in range(0, 200_000, 10_000):
        masks = some_masks("blockwise", first, 10_000)
        counts += np.bincount(masks.sum((1, 2)), minlength=77)
        cells += masks.sum(0)
    difference = (counts - official["count_hist"]) / 200_000
    assert np.abs(cells / 200_000 - official["cell_prob"]).max() < 0.006
    assert abs(difference[75]) < 0.005
    assert np.abs(difference).sum() / 2 < 0.01


def test_exact_blockwise_has_the_statistics_of_beit_v2():
    masks = some_masks("blockwise", 0, 20_000, exact=True)
    arrays = np.load(shared_path("oracles/masking/arrays.npz"))
    assert (masks.sum((1, 2)) == 75).all()
    assert abs(boundary(masks) - 41.73) < 0.25
    assert abs(corners(masks) - 0.047) < 0.006
    assert abs(masks[:, 5:9, 5:9].mean() - 0.697) < 0.01
    assert np.abs(masks.mean(0) - arrays["v2_14_75/cell_prob"]).max() < 0.02


def test_exact_blockwise_fills_the_same_blocks_anywhere(placed):
    before = placed[0][:2_000]
    after = some_masks("blockwise", 0, 2_000, exact=True)
    assert after[before].all()
    filled = after & ~before
    assert filled.sum() > 500
    chance = filled.sum() / (~before).sum()
    outermost = np.ones((14, 14), bool)
    outermost[1:-1, 1:-1] = False
    rim = filled[:, outermost].sum() / (~before[:, outermost]).sum()
    assert abs(rim / chance - 1) < 0.15


def test_random_hides_exactly_the_count_everywhere_alike():
    masks = some_masks("random", 0, 4_000, grid=(6, 8), max_patches=20)
    assert (masks.sum((1, 2)) == 20).all()
    assert np.abs(masks.mean(0) - 20 / 48).max() < 0.04


@pytest.mark.parametrize(("grid", "unit"), [((12, 12), 2), ((4, 6), 1), ((6, 9), 3)])
def test_random_hides_whole_units_of_patches(grid, unit):
    count = grid[0] * grid[1] // unit**2 // 2 * unit**2
    masks = some_masks("random", 0, 2_000, grid=grid, max_patches=count, unit=unit)
    units = masks.reshape(-1, grid[0] // unit, unit, grid[1] // unit, unit)
    assert (units == units[:, :, :1, :, :1]).all()
    assert (masks.sum((1, 2)) == count).all()
    assert np.abs(masks.mean(0) - count / (grid[0] * grid[1])).max() < 0.06


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_a_mask_depends_on_its_own_counter_only(kind, settings):
    settings = {"max_patches": 76} | settings
    whole = some_masks(kind, 0, 32, **settings)
    parts = [some_masks(kind, first, 8, **settings) for first in (0, 8, 16, 24)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert len(np.unique(whole.reshape(32, -1), axis=0)) == 32


@pytest.mark.parametrize("grid", [(4, 4), (6, 9), (1, 5), (3, 62), (70, 3)])
@pytest.mark.parametrize("exact", [False, True])
def test_blockwise_ends_on_every_grid(grid, exact):
    patches = grid[0] * grid[1]
    settings = {"grid": grid, "max_patches": patches, "min_block": 2, "exact": exact}
    masks = some_masks("blockwise", 0, 16, **settings)
    assert masks.shape == (16, *grid)
    assert masks.all() or not exact


@pytest.mark.parametrize("grid", [(4, 4), (9, 13), (13, 9), (2, 31), (2, 32), (2, 62)])
def test_a_first_block_is_one_rectangle_anywhere(grid):
    one_try = some_draw(0, 4_000)(0, 4)

    def draw(first, count):
        # Later tries ask for blocks too narrow to hide anything.
        narrow = tf.constant([[0.5, 30, 0.5, 0.5]], tf.float64)
        never = tf.tile(narrow, (4_000, count // 4))
        return tf.where(first == 0, tf.concat([one_try, never[:, 4:]], 1), never)

    masks, blocks = masking.place_blocks(draw, 4_000, grid, 6, 1, None, 0.3)
    masks = masks.numpy()
    rows, columns = masks.any(2), masks.any(1)
    np.testing.assert_array_equal(masks, rows[:, :, None] & columns[:, None, :])
    for used in (rows, columns):
        edges = np.diff(used.astype(int), axis=1, prepend=0, append=0)
        assert (np.abs(edges).sum(1) == 2 * used.any(1)).all()
    np.testing.assert_array_equal(blocks, masks.any((1, 2)))
    assert masks.any(0).all()


@pytest.mark.parametrize("kind", ["blockwise", "random"])
def test_more_patches_than_the_grid_has_are_refused(kind):
    with pytest.raises(ValueError, match=r"max_patches=17 must be in 1\.\.16.*4x4"):
        some_masks(kind, 0, 2, grid=(4, 4), max_patches=17)


def test_a_grid_too_wide_for_packed_rows_is_refused():
    with pytest.raises(ValueError, match="2x63 grid is too wide.*62"):
        some_masks("blockwise", 0, 2, grid=(2, 63))


def test_units_that_do_not_tile_the_grid_are_refused():
    with pytest.raises(ValueError, match="unit=4 must divide.*14x14.*divisor of 14 "):
        some_masks("random", 0, 2, max_patches=64, unit=4)


@pytest.mark.parametrize(("count", "way_out"), [(75, "72 or 76"), (3, "take 4$")])
def test_counts_that_are_no_whole_units_are_refused(count, way_out):
    with pytest.raises(ValueError, match=f"{count} must be a multiple of 4.*{way_out}"):
        some_masks("random", 0, 2, max_patches=count, unit=2)
