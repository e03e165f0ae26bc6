import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.models.quantizer import Quantizer
from tests.models import official


def start(model, **state):
    """The first state of the codebook, with some of it replaced."""
    z = jnp.zeros((1, 1, 1, model.dim))
    return {**model.init(jax.random.key(0), z)["codebook"], **state}


@functools.partial(jax.jit, static_argnums=0)
def train(model, codebook, z, seed=0):
    """One training step -> (outputs, next codebook)."""
    rngs = {"codebook": jax.random.key(seed)}
    variables = {"codebook": codebook}
    out, state = model.apply(variables, z, train=True, mutable=["codebook"], rngs=rngs)
    return out, state["codebook"]


def clusters(centres, each, spread=0.01):
    """Latents (1, centres * each, 1, C) scattered around given centres."""
    centres = jnp.asarray(centres, jnp.float32)
    noise = spread * jax.random.normal(
        jax.random.key(3), (each, len(centres), centres.shape[1])
    )
    return (centres + noise).reshape(1, -1, 1, centres.shape[1])


@functools.partial(jax.jit, static_argnums=0)
def train_with_gradient(model, codebook, z, cotangent):
    """As `train`, and the gradient of `sum(z_q * cotangent) + loss` by z."""

    def value(z):
        variables = {"codebook": codebook}
        out, state = model.apply(variables, z, train=True, mutable=["codebook"])
        return jnp.sum(out.z_q * cotangent) + out.loss.mean(), (out, state["codebook"])

    (_, (out, codebook)), grad = jax.value_and_grad(value, has_aux=True)(z)
    return out, codebook, grad


def test_unit_codebook_follows_the_official_one():
    arrays, meta = official.load("vq_norm_ema")
    settings = {"decay": meta["decay"], "beta": meta["beta"], "kmeans_steps": 0}
    model = Quantizer(meta["n_embed"], meta["dim"], l2_norm=True, **settings)
    codebook = start(
        model,
        embedding=jnp.asarray(arrays["in/codebook_init"]),
        cluster_size=jnp.zeros(meta["n_embed"]),
    )

    def check(name, value):
        np.testing.assert_allclose(value, arrays[name], atol=1e-6, rtol=0)

    def check_outputs(step, out, codebook):
        np.testing.assert_array_equal(out.ids.reshape(-1), arrays[f"out/{step}_ids"])
        check(f"out/{step}_z_q", out.z_q.transpose(0, 3, 1, 2))
        check(f"out/{step}_loss", out.loss.mean())
        check(f"out/{step}_codebook", codebook["embedding"])

    cotangent = arrays["in/cotangent"].transpose(0, 2, 3, 1)
    for t, z in enumerate(arrays["in/z"].transpose(0, 1, 3, 4, 2)):
        out, codebook, grad = train_with_gradient(model, codebook, z, cotangent)
        check_outputs(f"step{t}", out, codebook)
        check(f"out/step{t}_cluster_size", codebook["cluster_size"])
        check(f"grad/step{t}_z", grad.transpose(0, 3, 1, 2))
    z = arrays["in/z_eval"].transpose(0, 2, 3, 1)
    check_outputs("eval", model.apply({"codebook": codebook}, z), codebook)


def test_nearest_codes_by_hand():
    model = Quantizer(vocab=3, dim=2, beta=0.5)
    codebook = start(model, embedding=jnp.array([[0.0, 0], [1, 0], [0, 2]]))
    z = jnp.array([[0.9, 0.2], [0.1, 1.5]]).reshape(1, 1, 2, 2)
    out = model.apply({"codebook": codebook}, z)
    np.testing.assert_array_equal(out.ids, [[[1, 2]]])
    np.testing.assert_allclose(out.z_q, [[[[1, 0], [0, 2]]]], atol=1e-6)
    np.testing.assert_allclose(out.loss, 0.5 * (0.01 + 0.04 + 0.01 + 0.25) / 4)
    np.testing.assert_array_equal(out.counts, [0, 1, 1])
    codes = model.apply({"codebook": codebook}, out.ids, method="lookup")
    np.testing.assert_allclose(codes, out.z_q, atol=1e-6)


def test_gradient_passes_straight_through():
    model = Quantizer(vocab=4, dim=2, beta=0.0)
    codebook = start(model)
    z = jax.random.normal(jax.random.key(0), (1, 2, 2, 2))
    weights = jax.random.normal(jax.random.key(1), z.shape)
    grad = jax.grad(
        lambda z: jnp.sum(weights * model.apply({"codebook": codebook}, z).z_q)
    )(z)
    np.testing.assert_allclose(grad, weights, atol=1e-6)


@pytest.mark.parametrize("l2_norm", [False, True])
def test_kmeans_finds_separate_clusters_on_the_first_batch(l2_norm):
    centres = 3.0 * np.eye(3, 4)
    # Random starts may fall into one cluster twice; twelve codes cover three.
    model = Quantizer(vocab=12, dim=4, l2_norm=l2_norm)
    z = clusters(centres, each=32)
    out, codebook = train(model, start(model), z)
    assert codebook["initted"]
    assert out.counts.sum() == 96
    assert out.loss.mean() < 1e-3
    again, _ = train(model, codebook, z, seed=1)
    np.testing.assert_array_equal(out.ids, again.ids)  # a second batch starts nothing


def test_codes_move_to_the_mean_of_their_latents():
    model = Quantizer(vocab=2, dim=2, decay=0.5, kmeans_steps=0)
    codebook = start(
        model,
        embedding=jnp.array([[1.0, 1], [-1, -1]]),
        embed_sum=jnp.array([[1.0, 1], [-1, -1]]),
    )
    z = clusters([[2.0, 3], [-3, -2]], each=20)
    for _ in range(30):
        _, codebook = train(model, codebook, z)
    means = z.reshape(20, 2, 2).mean(0)
    np.testing.assert_allclose(codebook["embedding"], means, atol=1e-4)
    np.testing.assert_allclose(codebook["cluster_size"], 20, atol=1e-4)


@pytest.mark.parametrize("l2_norm", [False, True])
def test_dead_codes_restart_at_latents(l2_norm):
    model = Quantizer(
        vocab=2, dim=2, decay=0.5, kmeans_steps=0, l2_norm=l2_norm, restart_below=1.0
    )
    far = jnp.array([[1.0, 0], [-1, 0]])  # the second code is never the nearest
    codebook = start(model, embedding=far)
    z = clusters([[0.8, 0.6], [0.6, 0.8]], each=8)
    out, codebook = train(model, codebook, z)
    np.testing.assert_array_equal(out.counts, [16, 0])
    distance = jnp.linalg.norm(z.reshape(-1, 2) - codebook["embedding"][1], axis=-1)
    assert distance.min() < 0.01
    out, _ = train(model, codebook, z)
    assert out.counts.min() > 0


def test_codebook_changes_only_in_training_and_when_mutable():
    model = Quantizer(vocab=4, dim=2, kmeans_steps=0)
    codebook = start(model)
    z = jax.random.normal(jax.random.key(0), (1, 3, 3, 2))
    model.apply({"codebook": codebook}, z, train=True)  # not mutable: no error
    _, state = model.apply({"codebook": codebook}, z, mutable=["codebook"])
    np.testing.assert_array_equal(state["codebook"]["embedding"], codebook["embedding"])


def test_wrong_number_of_features_is_refused():
    model = Quantizer(vocab=4, dim=2)
    with pytest.raises(ValueError, match="latents have 3 features, codes 2"):
        model.init(jax.random.key(0), jnp.zeros((1, 2, 2, 3)))
