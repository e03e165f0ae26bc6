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
SMALL = {"classes": 5, "channels": 8}
SETTINGS = {
    "decoder": {"outputs": 5, "dim": 12, "depth": 1, "heads": 2},
    "linear": {"classes": 5},
    "tokens": {"outputs": 5},
    "linear_maps": {"classes": 5},
    "upernet": SMALL | {"auxiliary": 4},
    "setr_pup": SMALL,
    "setr_naive": SMALL,
    "setr_mla": SMALL | {"mla_channels": 4},
    "deconvolution": SMALL,
}
SETTINGS["aggregation"] = {
    "outputs": 5,
    "blocks": {"heads": 2},
    "encoder_depth": 2,
    "encoder_drop_path": 0.0,
    "early": 1,
}
TAPS = {"aggregation": 2}  # of heads that see another number than none


def of(tokens, name="") -> Features:
    """Features of a backbone that gave these tokens (B, 1+4, D), [CLS] first.

    It gave them for the taps of the head `name`, too, and has a last norm.
    """
    stage = Stage(tokens[:, 1:], tokens[:, 0], (2, 2))
    norm = {"scale": jnp.ones(8), "bias": jnp.zeros(8)}
    return Features(stage, TAPS.get(name, 0) * (stage,), norm=norm)


def logits_of(made):
    """What a head made, which may be maps of logits."""
    return getattr(made, "logits", made)


def run(name: str, dtype=jnp.float32, **settings):
    """(parameters, tokens (2, 1+4, 8), what the head makes of them)."""
    settings = SETTINGS[name] | settings
    head = lookup.call(HEADS[name], settings, name, dtype=dtype)
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((2, 5, 8), np.float32)
    init = functools.partial(head.init, jax.random.key(0))
    shapes = meta.unbox(jax.eval_shape(init, of(tokens, name)))
    params = shapes.pop("params")
    params = jax.tree.map(lambda x: rng.standard_normal(x.shape, x.dtype), params)
    rest = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)
    made = jax.jit(head.apply)({"params": params, **rest}, of(tokens, name))
    return params, tokens, logits_of(made)


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
    boxed = jax.eval_shape(init, of(np.zeros((2, 5, 8), np.float32), name))["params"]
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


def of_some(tokens, places) -> Features:
    """As `of`, but for patches at `places` (B, K) only."""
    return Features(Stage(tokens[:, 1:], tokens[:, 0], (2, 2), places))


def decoded(features):
    params, *_ = run("decoder")
    head = HEADS["decoder"](**SETTINGS["decoder"])
    return head.apply({"params": params}, features)


def test_a_decoder_puts_patches_in_their_places_and_mask_tokens_in_others():
    _, tokens, everything = run("decoder")
    order = np.array([[2, 0, 3, 1], [1, 3, 2, 0]])
    shuffled = np.take_along_axis(tokens[:, 1:], order[..., None], axis=1)
    shuffled = np.concatenate([tokens[:, :1], shuffled], axis=1)
    np.testing.assert_allclose(
        decoded(of_some(shuffled, order)), everything, rtol=1e-4, atol=1e-5
    )
    some = decoded(of_some(shuffled[:, :3], order[:, :2]))
    assert some.shape == everything.shape
    assert np.abs(some - everything).max() > 0.01


def test_a_decoder_predicts_what_it_is_asked_for():
    _, tokens, _ = run("decoder")
    places, asked = np.array([[0, 2]] * 2), np.array([[3, 1, 1]] * 2)
    features = of_some(tokens[:, :3], places)
    np.testing.assert_allclose(
        decoded(features.at(asked)), decoded(features)[:, [3, 1, 1]], rtol=1e-5
    )


def test_settings_that_a_decoder_cannot_have_are_refused():
    with pytest.raises(ValueError, match="head.dim=12 is no multiple of .*heads=5"):
        run("decoder", heads=5)
    with pytest.raises(ValueError, match="pos_embed='rope' is none of"):
        run("decoder", pos_embed="rope")
