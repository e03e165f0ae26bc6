"""Masks: the official generator's draws and statistics, exact counts, errors."""

import numpy as np
import pytest
import tensorflow as tf

from beit_jax.data import draws, masking
from tests.shared import shared_path


def some_masks(kind, first, count, **settings):
    draw = draws.stream(0, "test", tf.range(first, first + count, dtype=tf.int64))
    return masking.MASKS[kind](draw, count, **settings).numpy()


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


def test_blockwise_has_the_statistics_of_200k_official_masks():
    masks = some_masks("blockwise", 0, 20_000)
    counts = masks.sum((1, 2))
    boundary = (masks[:, 1:] != masks[:, :-1]).sum((1, 2))
    boundary += (masks[:, :, 1:] != masks[:, :, :-1]).sum((1, 2))
    corners = masks[:, ::13, ::13].mean()
    assert counts.max() == 75
    assert abs(counts.mean() - 74.472) < 0.03
    assert abs((counts == 75).mean() - 0.664) < 0.015
    assert abs(masks[:, 5:9, 5:9].mean() - 0.6956) < 0.01
    assert abs(corners - 0.042) < 0.006
    assert abs(boundary.mean() - 40.06) < 0.25


def test_blockwise_hides_each_patch_as_often_as_the_official_code():
    want = np.load(shared_path("oracles/masking/arrays.npz"))["v1_14_75/cell_prob"]
    assert np.abs(some_masks("blockwise", 0, 20_000).mean(0) - want).max() < 0.02


def test_random_hides_exactly_the_count_everywhere_alike():
    masks = some_masks("random", 0, 4_000, grid=(6, 8), max_patches=20)
    assert (masks.sum((1, 2)) == 20).all()
    assert np.abs(masks.mean(0) - 20 / 48).max() < 0.04


@pytest.mark.parametrize("kind", masking.MASKS)
def test_a_mask_depends_on_its_own_counter_only(kind):
    whole = some_masks(kind, 0, 32)
    parts = [some_masks(kind, first, 8) for first in (0, 8, 16, 24)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert len(np.unique(whole.reshape(32, -1), axis=0)) == 32


@pytest.mark.parametrize("grid", [(4, 4), (6, 9), (1, 5), (3, 62)])
def test_blockwise_ends_on_every_grid(grid):
    patches = grid[0] * grid[1]
    masks = some_masks("blockwise", 0, 16, grid=grid, max_patches=patches, min_block=2)
    assert masks.shape == (16, *grid)
    assert masks.sum((1, 2)).max() <= patches


@pytest.mark.parametrize("kind", masking.MASKS)
def test_more_patches_than_the_grid_has_are_refused(kind):
    with pytest.raises(ValueError, match=r"max_patches=17 must be in 1\.\.16.*4x4"):
        some_masks(kind, 0, 2, grid=(4, 4), max_patches=17)


def test_a_grid_too_wide_for_packed_rows_is_refused():
    with pytest.raises(ValueError, match="2x63 grid is too wide.*62"):
        some_masks("blockwise", 0, 2, grid=(2, 63))
