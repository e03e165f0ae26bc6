import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.checkpoints.foreign import discrete_vae as names
from beit_jax.checkpoints.foreign.rules import read
from beit_jax.checkpoints.names import flatten
from beit_jax.models.discrete_vae import DiscreteVAE
from beit_jax.models.gumbel import GumbelOutput, gumbel_softmax, kl_to_uniform
from beit_jax.tasks.objectives import LIKELIHOODS
from tests.agreement import assert_agrees, assert_relative
from tests.models import official

PEER = "oracle discrete_vae"
KEY = jax.random.key(0, impl="rbg")  # quick to compile
SMALL = DiscreteVAE(vocab=16, code_dim=8, hidden=8, patch_size=4)


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


def nhwc(x):
    return x.transpose(0, 2, 3, 1)


@pytest.fixture(scope="module")
def recorded():
    """(arrays, hyper-parameters, our model, the official weights in its tree)."""
    arrays, meta = official.load("discrete_vae")
    model = DiscreteVAE(
        vocab=meta["num_tokens"],
        code_dim=meta["codebook_dim"],
        hidden=meta["hidden_dim"],
        patch_size=2 ** meta["num_layers"],
    )
    state = official.group(arrays, "param")
    variables, _ = read(names.rows(model.patch_size), state)
    return arrays, meta, model, variables["params"]


def test_tokens_and_pictures_match_official(recorded):
    arrays, _, model, params = recorded
    model = model.bind({"params": params})
    logits = model.logits(nhwc(arrays["in/images"]))
    assert_agrees(PEER, "logits", logits, nhwc(arrays["out/logits"]), 1e-5)
    probs = jax.nn.softmax(logits)
    assert_agrees(PEER, "probabilities", probs, nhwc(arrays["out/probs"]), 1e-6)
    tokens = model.encode(nhwc(arrays["in/images"]))
    assert_agrees(PEER, "tokens", tokens, arrays["out/tokens"], 0)
    painted = model.decode(arrays["out/tokens"])
    assert_agrees(PEER, "pictures", painted, nhwc(arrays["out/decode_tokens"]), 1e-5)
    kl = kl_to_uniform(logits).sum()
    wanted = arrays["out/kl_sum_over_batch_and_positions_loss"]
    assert_agrees(PEER, "KL to uniform, summed", kl, wanted, 1e-5)


@pytest.mark.parametrize("case", ["soft", "hard"])
def test_training_matches_official(recorded, case):
    arrays, meta, model, params = recorded
    settings, temperature = meta["cases"][case], meta["temps"][case]
    image, noise = nhwc(arrays["in/images"]), nhwc(arrays["in/gumbel_noise"])
    distance = LIKELIHOODS["smooth_l1" if settings["smooth_l1_loss"] else "mse"]

    def paint(model, hard):
        logits = model.logits(image)
        codes = gumbel_softmax(logits, noise, temperature, hard)
        output = GumbelOutput(model.decode(codes), None, logits)
        return output, kl_to_uniform(logits).sum()

    @jax.jit
    def loss(params):
        hard = settings["straight_through"]
        output, kl = model.apply({"params": params}, hard, method=paint)
        error = distance(output, image).mean()
        return error + settings["kl_div_loss_weight"] * kl, output.reconstruction

    (total, recon), grads = jax.value_and_grad(loss, has_aux=True)(params)
    assert_agrees(PEER, "loss", total, arrays[f"out/{case}_loss"], 1e-6)
    wanted = nhwc(arrays[f"out/{case}_recon"])
    assert_agrees(PEER, "reconstruction", recon, wanted, 1e-5)
    table, grads = names.rows(model.patch_size), flatten(grads)
    wanted, _ = read(table, official.group(arrays, f"grad/{case}"))
    wanted = flatten(wanted["params"])
    for name, gradient in wanted.items():
        assert_relative(PEER, f"{case} gradients", grads[name], gradient, 1e-5)


@pytest.mark.parametrize("patch_size, grid", [(2, (8, 16)), (16, (1, 2))])
def test_one_token_stands_for_one_patch(patch_size, grid):
    model = SMALL.clone(patch_size=patch_size, res_blocks=2)
    image = jnp.zeros((1, 16, 32, 3))
    out, _ = jax.eval_shape(model.init_with_output, KEY, image)
    assert out.logits.shape == (1, *grid, 16)
    assert out.reconstruction.shape == image.shape
    assert out.stats is None


@pytest.fixture(scope="module")
def tiny():
    """(images, output without a temperature, variables) of SMALL."""
    images = jax.random.uniform(KEY, (4, 16, 16, 3), minval=-1)
    return images, *jax.jit(SMALL.init_with_output)(KEY, images)


def test_hard_draws_follow_the_key_and_are_the_limit_of_cold_ones(tiny):
    images, _, variables = tiny

    @functools.partial(jax.jit, static_argnums=2)
    def draw(seed, temperature, hard):
        rngs = {"gumbel": jax.random.fold_in(KEY, seed)}
        return SMALL.apply(variables, images, temperature, hard, rngs=rngs)

    one, same, other = (draw(seed, 0.9, True).reconstruction for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert jnp.any(one != other)
    cold = draw(1, 1e-6, False).reconstruction
    np.testing.assert_allclose(one, cold, atol=1e-5)


def test_without_a_temperature_the_likeliest_tokens_are_painted(tiny):
    images, out, variables = tiny
    model = SMALL.bind(variables)
    ids = model.encode(images)
    assert ids.dtype == jnp.int32
    np.testing.assert_array_equal(ids, out.logits.argmax(-1))
    np.testing.assert_allclose(model.decode(ids), out.reconstruction, atol=1e-6)
    painted = model.decode(jax.nn.one_hot(ids, SMALL.vocab))
    np.testing.assert_allclose(painted, out.reconstruction, atol=1e-6)


def test_bfloat16_keeps_the_tokens_and_returns_float32(tiny):
    images, exact, variables = tiny
    out = jax.jit(SMALL.clone(dtype=jnp.bfloat16).apply)(variables, images)
    assert out.reconstruction.dtype == out.logits.dtype == jnp.float32
    assert np.mean(out.logits.argmax(-1) == exact.logits.argmax(-1)) >= 0.95


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"patch_size": 12}, "patch_size=12 is no power of two above 1"),
        ({}, "24x18; both sides must be multiples of patch_size=4"),
    ],
)
def test_misfits_are_refused_in_words(settings, message):
    model = SMALL.clone(**settings)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, KEY, jnp.zeros((1, 24, 18, 3)))
