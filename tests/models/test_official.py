"""The encoder and its heads against numbers recorded from PyTorch code."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.checkpoints.names import flatten
from beit_jax.heads import network
from beit_jax.heads.linear import LinearHead
from beit_jax.heads.tokens import TokenHead
from beit_jax.tasks.encoders import with_head
from tests.agreement import assert_agrees
from tests.models import official
from tests.models.small import hidden
from tests.shared import shared_path

pytestmark = pytest.mark.usefixtures("optimised")
MIM = ("mim_v1", "mim_v1_abs")
CLASSIFIERS = ("finetune_v1", "finetune_v1_cls")


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


def random_mim(arrays, meta, **settings):
    """(parameters, function of them: logits of all patches, outputs of the blocks)."""
    model = official.encoder(meta, mask_token=True, **settings)
    params = official.tree(official.group(arrays, "param"), meta["num_heads"])
    head = TokenHead(params["lm_head"]["bias"].size)

    def apply(params):
        images, mask = official.images(arrays), arrays["in/bool_masked_pos"]
        features = model.apply({"params": params["encoder"]}, images, mask, train=True)
        return head.apply({"params": params}, features), hidden(features)

    return params, apply


def random_aggregation(arrays, meta):
    """As `random_mim`, with both predictions of BEiT v2."""
    head = {"name": "aggregation", "early": meta["early_layers"]}
    head |= {"layers": meta["head_layers"], "shared": meta["shared_lm_head"]}
    settings = {"mask_token": True, "rel_pos_bias": "shared", "taps": ()}
    model = with_head(
        official.encoder(meta, **settings), head, outputs=meta["vocab_size"]
    )
    params = official.tree(official.group(arrays, "param"), meta["num_heads"])

    def apply(params):
        image, mask = official.images(arrays), arrays["in/bool_masked_pos"]
        return network.apply(model, {"params": params}, image, mask)[0]

    return params, apply


def classifier(arrays, meta, **settings):
    """(parameters, function of them: logits, outputs of the blocks)."""
    params = official.tree(official.group(arrays, "param"), meta["num_heads"])
    pool = "mean" if "fc_norm" in params else "cls"
    model = official.encoder(meta, final_norm=pool == "cls", **settings)
    classes = params["head"]["bias"].size
    head = LinearHead(classes, pool, norm_eps=model.norm_eps)

    def apply(params):
        encoder = {"params": params["encoder"]}
        features = model.apply(encoder, official.images(arrays), train=True)
        logits = head.apply({"params": params}, features)
        return logits, hidden(features)

    return params, apply


def masked_cross_entropy(logits, arrays):
    targets, mask = arrays["in/targets"], arrays["in/bool_masked_pos"]
    nats = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)
    return jnp.sum(nats[..., 0], where=mask) / mask.sum()


def cross_entropy(logits, wanted):
    return -jnp.sum(wanted * jax.nn.log_softmax(logits), axis=-1).mean()


def soft_targets(arrays, meta):
    if meta["grad_loss"] == "soft_target":
        return arrays["in/soft_targets"]
    classes = meta["num_classes"]
    return 0.9 * np.eye(classes)[arrays["in/labels"]] + 0.1 / classes


def assert_blocks_agree(peer, hidden, arrays):
    wanted = [arrays[f"out/block_{i}"] for i in range(len(hidden))]
    assert_agrees(peer, "outputs of the blocks", hidden, wanted, atol=1e-5)


def by_block(tree):
    """Name -> array, each block's by themselves."""
    flat = {}
    for name, leaf in flatten(tree).items():
        stacked = "/blocks/" in name or name.startswith("cls_pt_layers/")
        layers = enumerate(leaf) if stacked else [("", leaf)]
        flat |= {f"{name} {i}".rstrip(): layer for i, layer in layers}
    return flat


def assert_gradients_agree(peer, grads, wanted):
    """Every tensor within 1e-5 of its own size (torch float32 has 1.3e-6)."""
    grads, wanted = by_block(grads), by_block(wanted)
    assert grads.keys() == wanted.keys()
    differences = {
        name: np.linalg.norm(grads[name] - want) / np.linalg.norm(want)
        for name, want in wanted.items()
    }
    worst = max(differences, key=differences.get)
    what = f"worst gradient of {len(differences)}"
    assert_agrees(peer, what, differences[worst], 0, atol=1e-5)


@pytest.mark.parametrize("oracle", ["beit2_pretrain", "beit2_pretrain_unshared"])
def test_both_predictions_of_beit_v2_match_official(oracle):
    arrays, meta = official.load(oracle)
    params, apply = random_aggregation(arrays, meta)

    @jax.jit
    def loss(params):
        made = apply(params)
        each = [masked_cross_entropy(logits, arrays) for logits in made]
        return sum(each), (made, each)

    (nats, (made, each)), grads = jax.value_and_grad(loss, has_aux=True)(params)
    peer = f"oracle {oracle}"
    for name, logits in zip(("main", "cls_pt"), made, strict=True):
        assert_agrees(peer, "logits", logits, arrays[f"out/logits_all_{name}"], 1e-5)
    for number, loss in enumerate(each, 1):
        assert_agrees(peer, "losses", loss, arrays[f"out/loss_{number}"], atol=2e-6)
    assert_agrees(peer, "their sum", nats, arrays["out/loss"], atol=3e-6)
    wanted = official.tree(official.group(arrays, "grad"), meta["num_heads"])
    assert_gradients_agree(peer, grads, wanted)


@pytest.mark.parametrize("oracle", MIM)
def test_masked_image_modelling_matches_official(oracle):
    arrays, meta = official.load(oracle)
    params, apply = random_mim(arrays, meta)

    @jax.jit
    def loss(params):
        logits, hidden = apply(params)
        return masked_cross_entropy(logits, arrays), (logits, hidden)

    (nats, (logits, hidden)), grads = jax.value_and_grad(loss, has_aux=True)(params)
    peer = f"oracle {oracle}"
    assert_agrees(peer, "logits", logits, arrays["out/logits_all"], atol=1e-5)
    assert_agrees(peer, "loss", nats, arrays["out/loss"], atol=2e-6)
    assert_blocks_agree(peer, hidden, arrays)
    wanted = official.tree(official.group(arrays, "grad"), meta["num_heads"])
    assert_gradients_agree(peer, grads, wanted)


@pytest.mark.parametrize("oracle", CLASSIFIERS)
def test_classification_matches_official(oracle):
    arrays, meta = official.load(oracle)
    params, apply = classifier(arrays, meta)

    @jax.jit
    def loss(params):
        logits, hidden = apply(params)
        return cross_entropy(logits, soft_targets(arrays, meta)), (logits, hidden)

    (nats, (logits, hidden)), grads = jax.value_and_grad(loss, has_aux=True)(params)
    peer = f"oracle {oracle}"
    atol = 5e-6 if oracle == "finetune_v1" else 1e-5
    assert_agrees(peer, "logits", logits, arrays["out/logits"], atol)
    wanted = arrays[f"out/loss_{meta['grad_loss']}"]
    assert_agrees(peer, "loss", nats, wanted, atol=2e-6)
    assert_blocks_agree(peer, hidden, arrays)
    wanted = official.tree(official.group(arrays, "grad"), meta["num_heads"])
    assert_gradients_agree(peer, grads, wanted)


def test_masked_image_modelling_matches_transformers():
    arrays, meta = official.load_hf("hf_mim")
    params, apply = random_mim(arrays, meta)
    logits, hidden = jax.jit(apply)(params)
    assert_agrees("oracle hf_mim", "logits", logits, arrays["out/logits"], atol=5e-6)
    nats = masked_cross_entropy(logits, arrays)
    assert_agrees("oracle hf_mim", "loss", nats, arrays["out/loss"], atol=2e-6)
    _, *wanted = (arrays[f"out/hidden_states_{i}"] for i in range(3))
    assert_agrees("oracle hf_mim", "outputs of the blocks", hidden, wanted, atol=1e-5)


def test_the_epsilon_that_transformers_assumes_gives_other_logits():
    arrays, meta = official.load_hf("hf_mim")
    params, apply = random_mim(arrays, meta | {"ln_eps": 1e-12})
    difference = jax.jit(apply)(params)[0] - arrays["out/logits"]
    assert np.abs(difference).max() > 7e-6


def test_classification_matches_transformers():
    arrays, meta = official.load_hf("hf_cls")
    params, apply = classifier(arrays, meta)
    logits, _ = jax.jit(apply)(params)
    assert_agrees("oracle hf_cls", "logits", logits, arrays["out/logits"], atol=5e-6)
    nats = cross_entropy(logits, np.eye(logits.shape[1])[arrays["in/labels"]])
    assert_agrees("oracle hf_cls", "loss", nats, arrays["out/loss"], atol=2e-6)


def test_classification_of_wide_images_matches_timm_and_official():
    arrays, meta = official.load("timm_beit")
    params, apply = classifier(arrays, meta | {"use_rel_pos_bias": True})
    logits, hidden = jax.jit(apply)(params)
    peer = "oracle timm_beit"
    assert_agrees(peer, "logits", logits, arrays["out/logits"], atol=5e-6)
    assert_agrees(peer, "last block", hidden[-1], arrays["out/tokens"], atol=1e-5)
    wanted = arrays["out/logits_official"]
    assert_agrees(peer, "official logits", logits, wanted, atol=5e-6)


@pytest.mark.parametrize("oracle", ["mim_v1_abs", "finetune_v1_cls"])
@pytest.mark.parametrize("eps", ["1e-5", "1e-12"])
def test_another_epsilon_changes_logits_as_it_does_in_the_official_code(oracle, eps):
    path = shared_path("oracles/sensitivity.json")
    recorded = json.loads(path.read_text())[oracle][f"layernorm eps {eps}"]
    arrays, meta = official.load(oracle)
    make = random_mim if oracle in MIM else classifier
    params, apply = make(arrays, meta)
    _, changed = make(arrays, meta | {"ln_eps": float(eps)})
    change = jax.jit(lambda params: changed(params)[0] - apply(params)[0])(params)
    assert_agrees(
        f"oracle {oracle}",
        f"change of logits by LayerNorm's epsilon {eps}",
        np.abs(change).max(),
        recorded["max_abs_logit_change"],
        atol=1e-5,
    )
