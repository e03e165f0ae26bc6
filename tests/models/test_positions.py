"""What rows of position tables mean, and their resizing against the official code's."""

import jax
import numpy as np
import pytest

from beit_jax.models import positions
from beit_jax.models.positions import relative_position_index
from tests.agreement import assert_agrees
from tests.models import official

GROWING = ("14->24", "14->32", "14->40", "7->10")  # where the official rule holds


def square(case: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Two grids, old and new, and from "14->24"."""
    old, new = map(int, case.split("->"))
    return (old, old), (new, new)


@pytest.mark.parametrize(
    "oracle, name, grid",
    [
        ("mim_v1", "rel_pos_bias.relative_position_index", (4, 4)),
        ("finetune_v1", "blocks.0.attn.relative_position_index", (4, 4)),
        ("finetune_v1_cls", "blocks.0.attn.relative_position_index", (4, 4)),
        ("timm_beit", "relative_position_index", (3, 5)),
    ],
)
def test_bias_index_is_the_recorded_one(oracle, name, grid):
    arrays, _ = official.load(oracle)
    wanted = arrays[f"buffer/{name}"]
    got = relative_position_index(grid)
    assert_agrees(f"oracle {oracle}", "index of relative positions", got, wanted, 0)


def test_bias_index_of_a_wide_grid_depends_on_the_offset_only():
    index = relative_position_index((2, 3))
    assert index.max() == positions.offset_rows((2, 3)) - 1 == 3 * 5 + 2
    assert index[1, 2] == index[5, 6] == index[2, 3]  # one to the right
    assert index[1, 2] != index[2, 1]
    assert len({*index[0, 1:], *index[1:, 0], index[0, 0]}) == 3


@pytest.mark.parametrize("case", GROWING)
def test_relative_tables_grow_as_in_the_official_code(case):
    arrays, meta = official.load("rpb_resize")
    old, new = square(case)
    places = positions.geometric_places(old[0], new[0] - 1)
    factor = places[old[0] + 1] - places[old[0]]
    peer = "oracle rpb_resize"
    assert_agrees(peer, "geometric factor", factor, meta["q"][case], atol=2e-6)
    name = case.replace("->", "_to_")
    got = positions.resize_offsets(arrays[f"in/table_{old[0]}"], old, new)
    wanted = arrays[f"out/table_{name}"]
    assert_agrees(peer, "relative tables", got, wanted, atol=1e-6)


@pytest.mark.parametrize("case", [*GROWING, "4->6", "4->8", "14->7"])
def test_absolute_tables_resize_as_in_the_official_code(case):
    arrays, _ = official.load("rpb_resize")
    old, new = square(case)
    got = positions.resize_embedding(arrays[f"in/pos_embed_{old[0]}"], old, new)
    wanted = arrays[f"out/pos_embed_{case.replace('->', '_to_')}"]
    assert_agrees("oracle rpb_resize", "absolute tables", got, wanted, atol=1e-5)


@pytest.mark.parametrize("old, new", [(4, 6), (4, 8), (40, 41), (2, 3), (14, 24)])
def test_the_last_old_offset_grows_to_the_last_new_one(old, new):
    places = positions.geometric_places(old, new - 1)
    assert np.all(np.diff(places) > 0) and places[old] == 1
    if old > 2:  # a grid of two has no step that could grow
        assert places[-1] == pytest.approx(new - 1, abs=1e-3)


def smooth(grid, heads=2):
    """A table like trained ones: near patches count most, and rows for [CLS]."""
    y, x = (np.arange(1 - side, side) / side for side in grid)
    near = np.exp(-4 * (y[:, None] ** 2 + 0.3 * x[None, :] ** 2 + 0.2 * x[None, :]))
    table = near.reshape(-1, 1) * np.arange(1, heads + 1)
    return np.concatenate([table, np.full((3, heads), 7.0)])


@pytest.mark.parametrize(
    "small, large",
    [((4, 4), (6, 6)), ((14, 14), (24, 24)), ((5, 3), (7, 9)), ((1, 1), (3, 2))],
)
def test_shrinking_undoes_growing(small, large):
    table = smooth(small)
    grown = positions.resize_offsets(table, small, large)
    assert grown.shape == (positions.offset_rows(large), 2)
    again = positions.resize_offsets(grown, large, small)
    np.testing.assert_allclose(again, table, atol=2e-3 * np.abs(table[:-3]).max())


def near(table, grid):
    """(3, 3, A) values for offsets of at most one patch."""
    height, width = grid
    offsets = table[:-3].reshape(2 * height - 1, 2 * width - 1, -1)
    return offsets[height - 2 : height + 1, width - 2 : width + 1]


@pytest.mark.parametrize("new", [(2, 2), (4, 9), (8, 3), (20, 20)])
def test_neighbours_and_cls_keep_their_relative_positions(new):
    old = (5, 5)
    table = np.random.default_rng(0).normal(size=(positions.offset_rows(old), 2))
    resized = positions.resize_offsets(table, old, new)
    np.testing.assert_allclose(near(resized, new), near(table, old), atol=1e-12)
    np.testing.assert_array_equal(resized[-3:], table[-3:])


@pytest.mark.parametrize(
    "rows, resize",
    [
        (positions.offset_rows, positions.resize_offsets),
        (positions.embedding_rows, positions.resize_embedding),
    ],
)
def test_each_side_of_the_grid_resizes_by_itself(rows, resize):
    old, new = (3, 4), (5, 2)
    table = np.random.default_rng(0).normal(size=(2, rows(old), 3))
    at_once = resize(table, old, new)
    in_turn = resize(resize(table, old, (5, 4)), (5, 4), new)
    np.testing.assert_allclose(at_once, in_turn, atol=1e-12)
    np.testing.assert_allclose(resize(table, old, old), table, atol=1e-12)
    compiled = jax.jit(lambda table: resize(table, old, new))(table)
    np.testing.assert_allclose(compiled, at_once, atol=1e-5)


def test_a_table_of_another_grid_is_refused():
    with pytest.raises(ValueError, match="27 rows is not for 3x3 patches, .* need 28"):
        positions.resize_offsets(np.zeros((27, 2)), (3, 3), (4, 4))
    with pytest.raises(ValueError, match="9 rows is not for 3x3 patches, .* need 10"):
        positions.resize_embedding(np.zeros((1, 9, 2)), (3, 3), (4, 4))


def test_sincos_positions_tell_column_and_row():
    table = positions.sincos((2, 3), 8)
    assert table.shape == (1, 7, 8) and table.dtype == np.float32
    assert not table[0, 0].any()
    for patch in range(6):
        y, x = divmod(patch, 3)
        wanted = [np.sin(x), np.sin(x / 100), np.cos(x), np.cos(x / 100)]
        wanted += [np.sin(y), np.sin(y / 100), np.cos(y), np.cos(y / 100)]
        np.testing.assert_allclose(table[0, 1 + patch], wanted, atol=1e-6)
    with pytest.raises(ValueError, match="dim=6 must be a multiple of 4"):
        positions.sincos((2, 3), 6)
