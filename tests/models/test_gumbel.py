import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.models.gumbel import (
    CodeProjection,
    cosine_anneal,
    gumbel_softmax,
    kl_to_uniform,
)

RNG = np.random.default_rng(0)
LOGITS = 2 * RNG.normal(size=(3, 4, 7))
NOISE = RNG.gumbel(size=(3, 4, 7))


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


@pytest.mark.parametrize("temperature", [1 / 16, 0.9, 3.0])
def test_soft_draw_is_a_softmax_of_noisy_logits(temperature):
    draw = jax.jit(gumbel_softmax)(LOGITS, NOISE, temperature)
    wanted = softmax((LOGITS + NOISE) / temperature)
    np.testing.assert_allclose(draw, wanted, atol=1e-6)


def test_hard_draw_is_one_hot_to_the_last_bit():
    draw = gumbel_softmax(LOGITS, NOISE, 0.9, hard=True)
    wanted = np.eye(7, dtype=np.float32)[np.argmax(LOGITS + NOISE, -1)]
    np.testing.assert_array_equal(draw, wanted)


@pytest.mark.parametrize("hard", [False, True])
def test_gradient_is_that_of_the_soft_draw(hard):
    weight, temperature = RNG.normal(size=LOGITS.shape), 0.7

    def loss(logits):
        return jnp.sum(weight * gumbel_softmax(logits, NOISE, temperature, hard))

    soft = softmax((LOGITS + NOISE) / temperature)
    wanted = soft * (weight - np.sum(weight * soft, -1, keepdims=True)) / temperature
    grad = jax.grad(loss)(LOGITS.astype(np.float32))
    np.testing.assert_allclose(grad, wanted, atol=1e-6)


def test_gumbel_noise_draws_tokens_as_often_as_they_are_probable():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
    noise = jax.random.gumbel(jax.random.key(0), (20_000, 4))
    often = gumbel_softmax(logits, noise, 1.0, hard=True).mean(0)
    np.testing.assert_allclose(often, jnp.exp(logits), atol=0.01)


@pytest.mark.parametrize("scale", [0.0, 0.1, 3.0, 300.0])
def test_kl_to_uniform_is_that_of_float64(scale):
    logits = (scale * LOGITS).astype(np.float32)
    probs = softmax(logits.astype(np.float64))
    wanted = np.sum(probs * (np.log(np.maximum(probs, 1e-300)) + np.log(7)), -1)
    np.testing.assert_allclose(kl_to_uniform(logits), wanted, atol=1e-6)


@pytest.mark.parametrize(
    "step, wanted",
    [(0, 1.0), (25, 0.0625 + 0.9375 * (1 + 0.5**0.5) / 2), (50, 0.53125)]
    + [(100, 0.0625), (101, 0.0625), (10**6, 0.0625)],
)
def test_cosine_goes_from_start_to_end_and_stays(step, wanted):
    anneal = jax.jit(lambda step: cosine_anneal(step, 1.0, 1 / 16, 100))
    np.testing.assert_allclose(anneal(step), wanted, atol=1e-6)


def test_cosine_of_no_steps_is_at_its_end():
    assert jax.jit(lambda step: cosine_anneal(step, 0.0, 6.6, 0))(0) == np.float32(6.6)


@pytest.mark.parametrize("use_bias", [False, True])
def test_ids_pick_what_one_hot_codes_multiply(use_bias):
    layer = CodeProjection(7, 5, use_bias=use_bias)
    ids = RNG.integers(0, 7, (2, 3, 4))
    rows, variables = layer.init_with_output(jax.random.key(0), ids)
    assert ("bias" in variables["params"]) == use_bias
    product = layer.apply(variables, jax.nn.one_hot(ids, 7))
    np.testing.assert_allclose(rows, product, atol=1e-6)
