"""Fused attention beside the plain path, on whatever device there is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.models.layers import Attention

GRID = (14, 14)  # 197 tokens: none of cuDNN's numbers


@pytest.mark.parametrize("dtype, near", [("float32", 2e-5), ("bfloat16", 0.02)])
def test_the_position_table_learns_as_in_the_plain_path(dtype, near):
    x = jax.random.normal(jax.random.key(0), (2, 197, 128))
    toward = jax.random.normal(jax.random.key(1), x.shape)

    def gradients(fused):
        layer = Attention(2, grid=GRID, fused=fused, dtype=jnp.dtype(dtype))
        params = jax.eval_shape(layer.init, jax.random.key(0), x, None, 1.0)["params"]
        rng = np.random.default_rng(0)
        params = jax.tree.map(
            lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), params
        )

        def loss(params):
            y, _ = layer.apply({"params": params}, x, None, 1.0)
            return (y * toward).sum()

        return jax.jit(jax.grad(loss))(params)

    def close(got, wanted):
        distance = np.linalg.norm(got - wanted) / np.linalg.norm(wanted)
        assert distance < near

    jax.tree.map(close, gradients(True), gradients(False))
