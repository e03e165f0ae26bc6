"""Parameters of one encoder made to serve another kind or another grid."""

import jax
import numpy as np
import pytest

from beit_jax.models import adapt, positions
from tests.models.small import IMAGE, make, tokens

TALL = jax.random.normal(jax.random.key(8), (4, 16, 12, 3))  # 4x3 patches
LOW = jax.random.normal(jax.random.key(8), (4, 4, 8, 3))  # 1x2 patches
KINDS = [
    {"rel_pos_bias": "shared"},
    {"rel_pos_bias": "per_block"},
    {"rel_pos_bias": "none", "abs_pos_embed": "learned"},
]


@pytest.mark.parametrize("settings", KINDS, ids=str)
@pytest.mark.parametrize("image, grid", [(TALL, (4, 3)), (LOW, (1, 2))])
def test_resizing_on_the_fly_equals_resizing_beforehand(settings, image, grid):
    model, params = make(**settings)  # for 2x3 patches
    on_the_fly = tokens(model, params, image)
    resized = adapt.resize_positions(params, (2, 3), grid)
    np.testing.assert_allclose(
        on_the_fly, tokens(model.clone(grid=grid), resized, image), atol=1e-5
    )


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_gradients_reach_a_table_that_is_resized(settings):
    model, params = make(**settings)

    @jax.jit
    @jax.grad
    def gradients(params):
        return (model.apply({"params": params}, TALL).tokens[:, :, 0] ** 2).sum()

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients(params)):
        if path[-1].key in adapt.TABLES:
            assert np.all(np.any(leaf != 0, axis=-1)), "every row has a part in it"


def table(grid, **more):
    """Parameters of which only the shared table of `grid` matters."""
    rows = np.random.default_rng(0).normal(size=(positions.offset_rows(grid), 2))
    return {"rel_pos_bias": {"table": rows.astype(np.float32)}} | more


def test_only_tables_of_positions_are_resized():
    params = table((3, 3), pos_embed=np.zeros((1, 10, 4)), cls_token=np.ones((1, 1, 4)))
    got = adapt.resize_positions(params, (3, 3), (5, 2))
    assert got["rel_pos_bias"]["table"].shape == (positions.offset_rows((5, 2)), 2)
    assert got["pos_embed"].shape == (1, 11, 4)
    assert got["cls_token"] is params["cls_token"]


def test_a_table_that_fits_already_stays():
    params = table((2, 3))
    got = adapt.resize_positions(params, (2, 3), (2, 3))
    assert got["rel_pos_bias"]["table"] is params["rel_pos_bias"]["table"]


def test_a_table_of_another_grid_than_told_is_refused():
    with pytest.raises(ValueError, match="18 rows is not for 3x3 patches"):
        adapt.resize_positions(table((2, 3)), (3, 3), (4, 4))


def test_copies_of_the_shared_table_compute_the_same():
    model, params = make()
    copied = adapt.shared_to_per_block(params, model.depth)
    own = model.clone(rel_pos_bias="per_block")
    shapes = make(rel_pos_bias="per_block")[1]
    assert jax.tree.map(np.shape, copied) == jax.tree.map(np.shape, shapes)
    np.testing.assert_allclose(
        tokens(own, copied, IMAGE), tokens(model, params, IMAGE), atol=1e-5
    )
    with pytest.raises(ValueError, match="no shared table"):
        adapt.shared_to_per_block(copied, model.depth)
    back = adapt.per_block_to_shared(copied)
    jax.tree.map(np.testing.assert_array_equal, back, params)
