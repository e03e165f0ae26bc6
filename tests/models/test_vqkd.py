"""VQ-KD against numbers recorded from the official code."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.checkpoints.foreign import rules, vqkd
from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.models.vqkd import VQKD
from beit_jax.tasks.base import Context
from beit_jax.tasks.objectives import Distillation
from tests import tiny
from tests.agreement import assert_agrees
from tests.models import official
from tests.models.test_official import assert_gradients_agree

pytestmark = pytest.mark.usefixtures("optimised")
PEER = "oracle vqkd"


class Told:
    """A teacher that says what was recorded of the official one."""

    frozen, width = None, 12

    def __init__(self, grid, features):
        self._features = features

    def __call__(self, frozen, image):
        return self._features


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


def recorded():
    """(arrays, the network, its variables, images in [-1, 1])"""
    arrays, meta = official.load("vqkd")
    model = VQKD(
        image_size=(meta["img_size"], meta["img_size"]),
        vocab=meta["n_code"],
        code_dim=meta["code_dim"],
        teacher_dim=meta["teacher_dim"],
        patch_size=meta["patch_size"],
        dim=meta["enc_dim"],
        depth=meta["enc_depth"],
        heads=meta["enc_heads"],
        teacher_blocks=meta["dec_depth"],
        decoder_dim=meta["dec_dim"],
        decoder_heads=meta["dec_heads"],
        norm_eps=meta["ln_eps"],
        decay=meta["decay"],
        beta=meta["beta"],
        kmeans_steps=0,
    )
    variables = tree(arrays, "param", meta)
    variables["codebook"]["quantizer"]["initted"] = np.array(True)
    variables = jax.tree.map(jnp.asarray, variables)
    image = 255 * arrays["in/images_01"].transpose(0, 2, 3, 1)
    return arrays, meta, model, variables, PIXEL_SPACES["half"].to_float(image)


def tree(arrays, kind, meta):
    heads = {"encoder": meta["enc_heads"], "decoder": meta["dec_heads"]}
    state = official.group(arrays, kind)
    rows = [row for row in vqkd.rows(heads) if row[0].replace("{i}", "0") in state]
    return rules.read(rows, state, vqkd.IGNORABLE)[0]


def test_tokens_and_features_match_official():
    arrays, _, model, variables, image = recorded()
    out = jax.jit(model.apply)(variables, image)
    ids = jax.jit(lambda x: model.apply(variables, x, method="encode"))(image)
    np.testing.assert_array_equal(ids.reshape(3, -1), arrays["out/tokens"])
    z_q = out.quantized.z_q.transpose(0, 3, 1, 2)
    assert_agrees(PEER, "codes", z_q, arrays["out/z_q"], atol=1e-6)
    told = out.features.reshape(3, 16, -1)
    assert_agrees(PEER, "features", told, arrays["out/decoded"], atol=1e-5)


def test_a_step_of_distillation_matches_official(monkeypatch):
    arrays, meta, model, variables, image = recorded()
    teachers = {"told": lambda grid: Told(grid, jnp.array(arrays["in/teacher"]))}
    monkeypatch.setattr("beit_jax.tasks.objectives.TEACHERS", teachers)
    objective = Distillation(model, PIXEL_SPACES["half"], (4, 4), {"name": "told"})
    state = {"codebook": variables["codebook"]}
    state["codebook"]["quantizer"]["cluster_size"] = jnp.zeros(meta["n_code"])
    ctx = Context(0, jax.random.key(0), state, {"teacher": None})

    @jax.jit
    def loss(params):
        made = objective(params, image, jnp.ones(3), ctx, train=True)
        return made.terms["loss"].mean(), made

    (total, made), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    assert_agrees(PEER, "loss", total, arrays["out/train_loss"], atol=1e-6)
    for ours, theirs in (("quantization", "quant"), ("distillation", "rec")):
        want = arrays[f"out/train_{theirs}_loss"]
        assert_agrees(PEER, ours, made.terms[ours].mean(), want, atol=1e-6)
    assert_gradients_agree(PEER, grads, tree(arrays, "grad", meta)["params"])
    after = made.model_state["codebook"]["quantizer"]
    for ours, theirs in (("embedding", "embedding.weight"), ("cluster_size",) * 2):
        want = arrays[f"after/quantize.{theirs}"]
        assert_agrees(PEER, f"{ours} after it", after[ours], want, atol=1e-6)


def small(**settings):
    """(the network, its variables, two images)"""
    model = VQKD(image_size=(32, 32), patch_size=8, **tiny.VQKD | settings)
    rng = np.random.default_rng(0)
    image = rng.standard_normal((2, 32, 32, 3), np.float32)
    shapes = nn.unbox(jax.eval_shape(model.init, jax.random.key(1), image))
    variables = jax.tree.map(
        lambda x: jnp.asarray(0.2 * rng.standard_normal(x.shape), x.dtype), shapes
    )
    return model, variables, image


def test_the_decoder_of_pixels_teaches_nothing_but_itself():
    model, variables, image = small()

    @jax.jit
    @jax.grad
    def gradient(params):
        made = model.apply({**variables, "params": params}, image)
        return jnp.square(made.reconstruction - image).mean()

    grads = gradient(variables["params"])
    taught = {name for name, g in grads.items() if any(map(np.any, jax.tree.leaves(g)))}
    assert taught == {"decoder", "to_pixels"}


def test_without_a_decoder_of_pixels_nothing_is_painted():
    model, variables, image = small(pixel_blocks=0)
    assert "decoder" not in variables["params"]
    assert jax.eval_shape(model.apply, variables, image).reconstruction is None
    with pytest.raises(ValueError, match="pixel_blocks=0; train one"):
        model.apply(variables, jnp.zeros((1, 4, 4), int), method="decode")


def test_the_published_network_has_its_109_36_million_parameters():
    model = VQKD(image_size=(224, 224), teacher_dim=512)
    image = jnp.zeros((1, 224, 224, 3))
    made = jax.eval_shape(model.init, jax.random.key(0), image)
    count = sum(leaf.size for leaf in jax.tree.leaves(made["params"]))
    codes = 2 * 8192 * 32 + 8192  # theirs are parameters: codes, their average, counts
    assert count + codes == 109_361_696
