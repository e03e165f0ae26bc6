"""The encoder against numbers recorded from the official PyTorch code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import official


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


def assert_gradients_match(grads, wanted):
    """Every tensor within 1e-5 of its own size (torch float32 has 1.3e-6)."""

    def check(path, got, want):
        difference = np.linalg.norm(got - want) / np.linalg.norm(want)
        assert difference < 1e-5, f"{jax.tree_util.keystr(path)}: {difference:.1e}"

    assert jax.tree.structure(grads) == jax.tree.structure(wanted)
    jax.tree_util.tree_map_with_path(check, grads, wanted)


def masked_cross_entropy(logits, targets, mask):
    nats = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)
    return jnp.sum(nats[..., 0], where=mask) / mask.sum()


@pytest.mark.parametrize("oracle", ["mim_v1", "mim_v1_abs"])
def test_masked_image_modelling_matches_official(oracle):
    arrays, meta = official.load(oracle)
    model = official.encoder(meta, mask_token=True)
    images, mask = official.images(arrays), arrays["in/bool_masked_pos"]

    def to_trees(state):
        head = (state["lm_head.weight"].T, state["lm_head.bias"])
        return official.encoder_tree(state, meta["num_heads"]), head

    @jax.jit
    def loss(params):
        encoder, (kernel, bias) = params
        features = model.apply({"params": encoder}, images, mask, train=True)
        logits = features.tokens[:, 1:] @ kernel + bias
        nats = masked_cross_entropy(logits, arrays["in/targets"], mask)
        return nats, (logits, features)

    params = to_trees(official.group(arrays, "param"))
    (nats, (logits, features)), grads = jax.value_and_grad(loss, has_aux=True)(params)
    np.testing.assert_allclose(logits, arrays["out/logits_all"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(nats, arrays["out/loss"], atol=2e-6, rtol=0)
    for block, output in enumerate(features.hidden):
        wanted = arrays[f"out/block_{block}"]
        np.testing.assert_allclose(output, wanted, atol=1e-5, rtol=0)
    assert_gradients_match(grads, to_trees(official.group(arrays, "grad")))


def norm(x, scale, bias, eps):
    x = x - x.mean(-1, keepdims=True)
    return x / jnp.sqrt(jnp.square(x).mean(-1, keepdims=True) + eps) * scale + bias


def soft_targets(arrays, meta):
    if meta["grad_loss"] == "soft_target":
        return arrays["in/soft_targets"]
    classes = meta["num_classes"]
    return 0.9 * np.eye(classes)[arrays["in/labels"]] + 0.1 / classes


@pytest.mark.parametrize("oracle", ["finetune_v1", "finetune_v1_cls"])
def test_classification_matches_official(oracle):
    arrays, meta = official.load(oracle)
    pools = meta["use_mean_pooling"]
    model = official.encoder(meta, final_norm=not pools)

    def to_trees(state):
        names = ("fc_norm.weight", "fc_norm.bias") if pools else ()
        head = [state[name] for name in ("head.weight", "head.bias", *names)]
        return official.encoder_tree(state, meta["num_heads"]), head

    @jax.jit
    def loss(params):
        encoder, (kernel, bias, *norm_params) = params
        features = model.apply({"params": encoder}, official.images(arrays), train=True)
        pooled = features.tokens[:, 0]
        if pools:
            pooled = norm(features.tokens[:, 1:].mean(1), *norm_params, meta["ln_eps"])
        logits = pooled @ kernel.T + bias
        nats = -jnp.sum(soft_targets(arrays, meta) * jax.nn.log_softmax(logits), -1)
        return nats.mean(), (logits, pooled, features.hidden)

    params = to_trees(official.group(arrays, "param"))
    (nats, aux), grads = jax.value_and_grad(loss, has_aux=True)(params)
    logits, pooled, hidden = aux
    atol = 5e-6 if oracle == "finetune_v1" else 1e-5
    np.testing.assert_allclose(logits, arrays["out/logits"], atol=atol, rtol=0)
    np.testing.assert_allclose(pooled, arrays["out/features"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(
        nats, arrays[f"out/loss_{meta['grad_loss']}"], atol=2e-6, rtol=0
    )
    for block, output in enumerate(hidden):
        wanted = arrays[f"out/block_{block}"]
        np.testing.assert_allclose(output, wanted, atol=1e-5, rtol=0)
    assert_gradients_match(grads, to_trees(official.group(arrays, "grad")))
