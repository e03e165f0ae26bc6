import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.models.layers import (
    Attention,
    DropPath,
    product,
    relative_position_index,
)
from tests.models import official


@pytest.mark.parametrize(
    "oracle, name",
    [
        ("mim_v1", "rel_pos_bias.relative_position_index"),
        ("finetune_v1", "blocks.0.attn.relative_position_index"),
    ],
)
def test_bias_index_is_the_official_one(oracle, name):
    arrays, _ = official.load(oracle)
    np.testing.assert_array_equal(
        relative_position_index((4, 4)), arrays[f"buffer/{name}"]
    )


def test_bias_index_of_a_wide_grid_depends_on_the_offset_only():
    index = relative_position_index((2, 3))
    assert index.max() == 3 * 5 + 2
    assert index[1, 2] == index[5, 6] == index[2, 3]  # one to the right
    assert index[1, 2] != index[2, 1]
    assert len({*index[0, 1:], *index[1:, 0], index[0, 0]}) == 3


def drop(rate, batch=4000):
    x = jnp.ones((batch, 2, 3))
    return DropPath().apply({}, x, rate, rngs={"drop_path": jax.random.key(0)})


def test_drop_path_drops_whole_examples_and_keeps_the_mean():
    y = np.array(drop(0.25))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert np.all(y == y[:, :1, :1])
    assert abs(y[:, 0, 0].mean() - 1) < 3 * np.sqrt(0.25 / 0.75 / len(y))


def test_drop_path_at_rate_zero_is_the_identity():
    np.testing.assert_array_equal(drop(0.0), 1)


def test_attention_has_no_key_bias():
    layer, x = Attention(heads=2), jnp.zeros((1, 5, 8))
    shapes = nn.unbox(jax.eval_shape(layer.init, jax.random.key(1), x, None, 1.0))
    assert set(shapes["params"]) == {"qkv", "q_bias", "v_bias", "proj"}


@pytest.mark.parametrize("spec", ["ni,iaj->naj", "bqak,bsak->baqs", "baqs,bsak->bqak"])
def test_product_has_the_gradients_of_einsum(spec):
    sizes = dict(zip("niajbqsk", range(2, 10), strict=True))
    left, right, out = spec.replace("->", ",").split(",")
    rng = np.random.default_rng(0)
    x, y, g = (
        rng.normal(size=[sizes[i] for i in part]).astype(np.float32)
        for part in (left, right, out)
    )

    def gradients(multiply):
        return jax.grad(lambda x, y: jnp.sum(g * multiply(x, y)), (0, 1))(x, y)

    wanted = gradients(lambda x, y: jnp.einsum(spec, x, y))
    exact = gradients(lambda x, y: product(spec, x, y, jnp.float32))
    short = gradients(lambda x, y: product(spec, x, y, jnp.bfloat16))
    for want, got, rounded in zip(wanted, exact, short, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4)
        np.testing.assert_allclose(rounded, want, atol=0.03 * np.abs(want).max())
