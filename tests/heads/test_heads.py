"""What every head in the table makes of the encoder's tokens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import meta

from beit_jax import lookup
from beit_jax.heads import HEADS
from beit_jax.models.features import Features, Stage

# The smallest settings of every head; a new one needs a line here.
SETTINGS = {"linear": {"classes": 5}, "tokens": {"outputs": 5}}
SETTINGS["aggregation"] = {
    "outputs": 5,
    "blocks": {"heads": 2},
    "depth": 2,
    "drop_path": 0.0,
    "early": 1,
}


def of(tokens) -> Features:
    """Features of a backbone that gave these tokens (B, 1+4, D), [CLS] first.

    It gave them for its taps, too, and has a last norm.
    """
    stage = Stage(tokens[:, 1:], tokens[:, 0], (2, 2))
    norm = {"scale": jnp.ones(8), "bias": jnp.zeros(8)}
    return Features(stage, (stage, stage), norm=norm)


def run(name: str, dtype=jnp.float32, **settings):
    """(parameters, tokens (2, 1+4, 8), what the head makes of them)."""
    settings = SETTINGS[name] | settings
    head = lookup.call(HEADS[name], settings, name, dtype=dtype)
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((2, 5, 8), np.float32)
    init = functools.partial(head.init, jax.random.key(0))
    shapes = meta.unbox(jax.eval_shape(init, of(tokens))["params"])
    params = jax.tree.map(lambda x: rng.standard_normal(x.shape, x.dtype), shapes)
    return params, tokens, jax.jit(head.apply)({"params": params}, of(tokens))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_head_gives_float32_whatever_it_computes_in(name, dtype):
    params, _, made = run(name, dtype)
    for out in jax.tree.leaves(made):
        assert out.dtype == jnp.float32 and out.shape[-1] == 5
        assert np.isfinite(out).all()
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("name", HEADS)
def test_every_parameter_of_a_head_names_its_axes(name):
    head = HEADS[name](**SETTINGS[name])
    init = functools.partial(head.init, jax.random.key(0))
    boxed = jax.eval_shape(init, of(np.zeros((2, 5, 8), np.float32)))["params"]
    boxes = jax.tree.leaves(boxed, is_leaf=lambda x: isinstance(x, meta.AxisMetadata))
    assert boxes
    for box in boxes:
        assert isinstance(box, meta.AxisMetadata)
        assert len(box.names) == box.value.ndim


def test_the_token_head_is_one_linear_layer():
    params, tokens, out = run("tokens")
    layer = params["lm_head"]
    wanted = tokens[:, 1:] @ np.asarray(layer["kernel"]) + layer["bias"]
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5)


def test_mean_pooling_looks_at_patches_and_cls_pooling_at_cls():
    for pool, seen in (("mean", slice(1, None)), ("cls", slice(0, 1))):
        params, tokens, out = run("linear", pool=pool)
        head = HEADS["linear"](5, pool)
        others = np.array(tokens)
        others[:, seen] += np.arange(8)
        same = np.full_like(tokens, 7.0)
        same[:, seen] = tokens[:, seen]
        variables = {"params": params}
        assert np.abs(head.apply(variables, of(others)) - out).max() > 0.1
        np.testing.assert_allclose(head.apply(variables, of(same)), out, rtol=1e-5)


def test_pooled_patches_are_normalised_before_the_last_layer():
    params, tokens, out = run("linear", pool="mean")
    pooled = tokens[:, 1:].mean(1)
    pooled = (pooled - pooled.mean(1, keepdims=True)) / pooled.std(1, keepdims=True)
    norm, layer = params["fc_norm"], params["head"]
    x = pooled * np.asarray(norm["scale"]) + np.asarray(norm["bias"])
    wanted = x @ np.asarray(layer["kernel"]) + layer["bias"]
    np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-4)
