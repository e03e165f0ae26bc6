import functools
import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beit_jax.models.quantizer import KEPT, Quantizer, draw, nearest, uses
from tests.agreement import assert_agrees
from tests.models import official

ROOT = pathlib.Path(__file__).parents[2]
KEY = jax.random.key(0)


def start(model, **state):
    """The first state of the codebook, with some of it replaced."""
    z = jnp.zeros((1, 1, 1, model.dim))
    return {**model.init(KEY, z)["codebook"], **state}


@functools.partial(jax.jit, static_argnums=0)
def train(model, codebook, z, seed=0, weight=None):
    """One training step -> (outputs, next codebook)."""
    out, state = model.apply(
        {"codebook": codebook},
        z,
        train=True,
        weight=weight,
        mutable=["codebook"],
        rngs={"codebook": jax.random.key(seed)},
    )
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
    settings = {"decay": meta["decay"], "beta": meta["beta"]}
    off = {"kmeans_steps": 0, "restart_below": 0.0}
    model = Quantizer(meta["n_embed"], meta["dim"], l2_norm=True, **settings, **off)
    codebook = start(
        model,
        embedding=jnp.asarray(arrays["in/codebook_init"]),
        cluster_size=jnp.zeros(meta["n_embed"]),
    )

    def check(what, name, value):
        assert_agrees("oracle vq_norm_ema", what, value, arrays[name], atol=1e-6)

    def check_outputs(step, out, codebook):
        np.testing.assert_array_equal(out.ids.reshape(-1), arrays[f"out/{step}_ids"])
        check("codes", f"out/{step}_z_q", out.z_q.transpose(0, 3, 1, 2))
        check("loss", f"out/{step}_loss", out.loss.mean())
        check("codebook", f"out/{step}_codebook", codebook["embedding"])

    cotangent = arrays["in/cotangent"].transpose(0, 2, 3, 1)
    for t, z in enumerate(arrays["in/z"].transpose(0, 1, 3, 4, 2)):
        out, codebook, grad = train_with_gradient(model, codebook, z, cotangent)
        check_outputs(f"step{t}", out, codebook)
        check("cluster_size", f"out/step{t}_cluster_size", codebook["cluster_size"])
        check("gradient", f"grad/step{t}_z", grad.transpose(0, 3, 1, 2))
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
    codes = model.apply({"codebook": codebook}, out.ids, method="lookup")
    np.testing.assert_allclose(codes, out.z_q, atol=1e-6)


def test_uses_count_and_add_what_chose_each_code():
    z, codes = jax.random.normal(KEY, (2, 3, 4, 5)), jax.random.normal(KEY, (7, 5))
    ids, weight = nearest(z, codes), jnp.array([1.0, 0.0])[:, None, None]
    counts, sums = uses(z, ids, jnp.broadcast_to(weight, ids.shape), 7)
    chosen = np.eye(7)[ids] * weight[..., None]
    np.testing.assert_array_equal(counts, chosen.sum((0, 1, 2)))
    wanted = np.einsum("bhwv,bhwc->vc", chosen, z)
    np.testing.assert_allclose(sums, wanted, atol=1e-6)


def test_latents_are_drawn_evenly_and_only_those_of_weight_1():
    z = jnp.arange(6.0).reshape(1, 6, 1, 1)
    weight = jnp.array([1.0, 0, 1, 1, 0, 1]).reshape(1, 6, 1)
    some = draw(KEY, z, weight, 3).reshape(-1)
    assert len(np.unique(some)) == 3
    many = draw(KEY, z, weight, 8).reshape(-1)
    np.testing.assert_array_equal(np.sort(many), [0, 0, 2, 2, 3, 3, 5, 5])


def test_products_with_all_codes_are_never_whole_in_memory():
    z, codes = jnp.zeros((4, 32, 32, 8)), jnp.zeros((4096, 8))
    row, whole = (4 * rows * 32 * 4096 * 4 for rows in (1, 32))
    taken = jax.jit(nearest).lower(z, codes).compile().memory_analysis()
    assert row <= taken.temp_size_in_bytes < whole / 8


def test_gradient_passes_straight_through():
    model = Quantizer(vocab=4, dim=2, beta=0.0)
    codebook = start(model)
    z = jax.random.normal(KEY, (1, 2, 2, 2))
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
    assert out.loss.mean() < 1e-3
    again, _ = train(model, codebook, z, seed=1)
    np.testing.assert_array_equal(out.ids, again.ids)  # a second batch starts nothing


def test_codes_move_to_the_mean_of_their_latents():
    off = {"kmeans_steps": 0, "restart_below": 0.0}
    model = Quantizer(vocab=2, dim=2, decay=0.5, **off)
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
    np.testing.assert_array_equal(np.unique(out.ids), [0])
    distance = jnp.linalg.norm(z.reshape(-1, 2) - codebook["embedding"][1], axis=-1)
    assert distance.min() < 0.01
    out, _ = train(model, codebook, z)
    assert 1 in np.unique(out.ids).tolist()


def test_codebook_changes_only_in_training_and_when_mutable():
    model = Quantizer(vocab=4, dim=2, kmeans_steps=0)
    codebook = start(model)
    z = jax.random.normal(KEY, (1, 3, 3, 2))
    model.apply({"codebook": codebook}, z, train=True)  # not mutable: no error
    _, state = model.apply({"codebook": codebook}, z, mutable=["codebook"])
    np.testing.assert_array_equal(state["codebook"]["embedding"], codebook["embedding"])


def test_wrong_number_of_features_is_refused():
    model = Quantizer(vocab=4, dim=2)
    with pytest.raises(ValueError, match="latents have 3 features, codes 2"):
        model.init(KEY, jnp.zeros((1, 2, 2, 3)))


def test_a_start_from_one_batch_keeps_none_of_it():
    names = {"embedding", "embed_sum", "cluster_size", "initted"}
    assert start(Quantizer(vocab=4, dim=2)).keys() == names
    more = start(Quantizer(vocab=4, dim=2, kmeans_batches=3))
    assert more.keys() == names | {"start_latents", "start_batches"}
    assert more["start_latents"].shape == (3, KEPT, 2)


@pytest.mark.parametrize("l2_norm", [False, True])
def test_kmeans_over_batches_remembers_them_all(l2_norm):
    settings = {"kmeans_batches": 3, "restart_below": 0.0, "decay": 1.0}
    model = Quantizer(vocab=12, dim=4, l2_norm=l2_norm, **settings)
    codebook = start(model)
    batches = [clusters(3.0 * np.eye(4)[[i, i + 1]], each=16) for i in range(3)]
    for i, z in enumerate(batches):
        assert not codebook["initted"]
        out, codebook = train(model, codebook, z, seed=i)
        assert out.loss.mean() < 1e-3
        # As many uses as this batch has latents, however many were clustered.
        np.testing.assert_allclose(codebook["cluster_size"].sum(), 32, rtol=0.01)
    assert codebook["initted"]
    for z in batches:
        assert model.apply({"codebook": codebook}, z).loss.mean() < 1e-3
    _, after = train(model, codebook, 9 * batches[0], seed=3)
    np.testing.assert_array_equal(after["start_latents"], codebook["start_latents"])
    np.testing.assert_allclose(after["embedding"], codebook["embedding"], atol=1e-5)


@pytest.mark.parametrize("kmeans_batches", [1, 2])
def test_nothing_is_learnt_from_images_of_weight_0(kmeans_batches):
    settings = {"kmeans_batches": kmeans_batches, "restart_below": 2.0}
    model = Quantizer(vocab=4, dim=2, **settings)
    z = jax.random.normal(KEY, (3, 2, 2, 2))
    weight = jnp.array([1.0, 0, 1])
    codebooks = [start(model), start(model)]
    for seed in range(kmeans_batches + 1):
        for i, other in enumerate((z, z.at[1].set(99.0))):
            _, codebooks[i] = train(model, codebooks[i], other, seed, weight)
    for a, b in zip(*map(jax.tree.leaves, codebooks), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kmeans_batches", [1, 2])
def test_a_batch_without_a_good_image_starts_nothing(kmeans_batches):
    model = Quantizer(vocab=4, dim=2, kmeans_batches=kmeans_batches)
    z = jax.random.normal(KEY, (2, 2, 2, 2))
    before = start(model)
    _, after = train(model, before, z, weight=jnp.zeros(2))
    after["cluster_size"] /= model.decay
    after["embed_sum"] /= model.decay
    for name, value in before.items():
        np.testing.assert_allclose(after[name], value, atol=1e-6, err_msg=name)


def test_fewer_latents_than_codes_start_a_codebook():
    model = Quantizer(vocab=8, dim=2, restart_below=0.0)
    z = jax.random.normal(KEY, (1, 1, 3, 2))
    out, codebook = train(model, start(model), z)
    assert out.loss.mean() < 1e-6
    assert np.isfinite(codebook["embedding"]).all()


def gradient_model(l2_norm=False, **settings):
    return Quantizer(vocab=3, dim=2, learning="gradient", l2_norm=l2_norm, **settings)


def test_gradient_losses_by_hand():
    model, codes = gradient_model(beta=0.5), jnp.array([[0.0, 0], [1, 0], [0, 2]])
    z = jnp.array([[0.9, 0.2], [0.1, 1.5]]).reshape(1, 1, 2, 2)

    def loss(codes, z):
        return model.apply({"params": {"embedding": codes}}, z).loss[0]

    value, (by_codes, by_z) = jax.value_and_grad(loss, (0, 1))(codes, z)
    np.testing.assert_allclose(value, 1.5 * (0.01 + 0.04 + 0.01 + 0.25) / 4, rtol=1e-6)
    wanted = np.array([[0, 0], [0.1, -0.2], [-0.1, 0.5]]) * 2 / 4
    np.testing.assert_allclose(by_codes, wanted, atol=1e-6)
    wanted = np.array([[-0.1, 0.2], [0.1, -0.5]]).reshape(z.shape) * 0.5 * 2 / 4
    np.testing.assert_allclose(by_z, wanted, atol=1e-6)


def test_only_a_gradient_codebook_is_a_parameter():
    z = jax.random.normal(KEY, (1, 2, 2, 2))
    assert gradient_model().init(KEY, z).keys() == {"params"}
    model = Quantizer(vocab=3, dim=2)
    assert model.init(KEY, z).keys() == {"codebook"}

    def value(codebook):
        out = model.apply({"codebook": codebook}, z)
        return out.loss.sum() + out.z_q.sum()

    grads = jax.grad(value, allow_int=True)(start(model))
    np.testing.assert_array_equal(grads["embedding"], 0)


def test_codes_of_a_gradient_are_normalised_on_use():
    model = gradient_model(l2_norm=True)
    params = {"embedding": jnp.array([[3.0, 4], [-5, 0], [0, 0.1]])}
    codes = model.apply({"params": params}, jnp.arange(3), method="lookup")
    np.testing.assert_allclose(codes, [[0.6, 0.8], [-1, 0], [0, 1]], atol=1e-6)
    out = model.apply({"params": params}, jnp.array([[[[0.0, 7]]]]))
    np.testing.assert_array_equal(out.ids, [[[2]]])
    np.testing.assert_allclose(out.loss, 0, atol=1e-12)


@pytest.mark.parametrize("l2_norm", [False, True])
def test_a_codebook_learns_by_its_gradient(l2_norm):
    model = Quantizer(vocab=16, dim=2, learning="gradient", l2_norm=l2_norm)
    z = jax.random.normal(KEY, (4, 4, 4, 2))
    params = model.init(KEY, z)["params"]
    value = jax.value_and_grad(lambda p: model.apply({"params": p}, z).loss.mean())
    tx = optax.adam(0.05)

    def step(carry, _):
        params, state = carry
        loss, grads = value(params)
        updates, state = tx.update(grads, state)
        return (optax.apply_updates(params, updates), state), loss

    _, losses = jax.lax.scan(step, (params, tx.init(params)), length=100)
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"learning": "sgd"}, "learning='sgd' must be 'ema' or 'gradient'"),
        (
            {"learning": "gradient", "restart_below": 0.2, "kmeans_steps": 0},
            "no use for kmeans_steps=0, restart_below=0.2",
        ),
        ({"kmeans_batches": 0}, "kmeans_batches=0 must be at least 1"),
        ({"kmeans_batches": 2, "kmeans_steps": 0}, "needs kmeans_steps=0 above 0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Quantizer(vocab=4, dim=2, **settings).init(KEY, jnp.zeros((1, 2, 2, 2)))


@pytest.mark.slow
def test_every_split_of_the_batch_trains_the_same_codebook():
    """On 2 and 8 devices against one: k-means, averages, restarts, gradients."""
    command = [sys.executable, "-m", "tests.models.quantizer_mesh"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 6
    for settings, got in found.items():
        assert got["state"] < 1e-6, (settings, got)
        assert got["ids"] == 0, (settings, got)
        assert got["codes"] > 4, (settings, got)
