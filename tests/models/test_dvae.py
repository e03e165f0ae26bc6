import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.checkpoints.foreign import dvae as names
from beit_jax.checkpoints.foreign.rules import read
from beit_jax.models.dvae import DVAE, double, halve, logit_laplace_nll
from beit_jax.models.pixels import PIXEL_SPACES
from tests.agreement import assert_agrees
from tests.models import official

PEER = "oracle dvae"
KEY = jax.random.key(0, impl="rbg")  # quick to compile
SMALL = DVAE(vocab=32, n_hid=8, n_init=8, patch_size=2, blocks_per_group=1)


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


def pictures(count=2, size=16):
    """Smooth random images in pixel space "dalle"."""
    coarse = jax.random.uniform(KEY, (count, 4, 4, 3), minval=0.1, maxval=0.9)
    return jax.image.resize(coarse, (count, size, size, 3), "linear")


def nhwc(x):
    return x.transpose(0, 2, 3, 1)


@pytest.fixture(scope="module")
def recorded():
    """(arrays, our model with the official weights bound to it)."""
    arrays, meta = official.load("dvae")
    sizes = {"n_hid": meta["n_hid"], "n_init": meta["n_init"]}
    variables, _ = read(names.rows(**sizes), official.group(arrays, "param"))
    return arrays, DVAE(vocab=meta["vocab_size"], **sizes).bind(variables)


def test_encoder_matches_official(recorded):
    arrays, model = recorded
    logits, wanted = model.logits(nhwc(arrays["out/mapped"])), arrays["out/logits"]
    scale = np.abs(wanted).max()
    assert_agrees(PEER, "logits / largest", logits / scale, nhwc(wanted) / scale, 1e-5)
    tokens = model.encode(nhwc(arrays["out/mapped"]))
    assert_agrees(PEER, "tokens", tokens, arrays["out/tokens"], 0)


@pytest.mark.parametrize("codes", ["tokens", "probs"])
def test_decoder_matches_official(recorded, codes):
    arrays, model = recorded
    value = arrays["out/tokens"]
    if codes == "probs":
        value = jax.nn.softmax(nhwc(arrays["out/logits"]))
    wanted = nhwc(arrays[f"out/decoder_stats_from_{codes}"])
    assert_agrees(PEER, f"stats from {codes}", model.stats(value), wanted, 2e-6)


def test_reconstruction_matches_official(recorded):
    arrays, model = recorded
    made = model.decode(arrays["out/tokens"])
    made = np.clip((made - 0.1) / 0.8, 0, 1)
    assert_agrees(PEER, "pixels", made, nhwc(arrays["out/reconstruction"]), 1e-6)


def test_pixel_space_matches_official(recorded):
    arrays, _ = recorded
    image = PIXEL_SPACES["dalle"].to_float(255 * nhwc(arrays["in/images_01"]))
    assert_agrees(PEER, "map_pixels", image, nhwc(arrays["out/mapped"]), 1e-6)
    probe, wanted = (arrays[f"{where}/unmap_probe"] for where in ("in", "out"))
    pixels = PIXEL_SPACES["dalle"].to_uint8(np.repeat(probe[..., None], 3, -1))
    assert np.abs(pixels[..., 0] - 255 * wanted).max() < 0.501  # rounded


def test_likelihood_matches_the_recorded_mean(recorded):
    arrays, _ = recorded
    stats = nhwc(arrays["out/decoder_stats_from_tokens"])
    nll = logit_laplace_nll(stats, nhwc(arrays["out/mapped"])).mean()
    wanted = arrays["out64/logit_laplace_nll_mean_loss"]
    assert_agrees(PEER, "logit-Laplace nll, mean", nll, wanted, 1e-6)


@pytest.mark.parametrize("mu, ln_b", [(0.0, -1.0), (2.0, -0.7), (-1.5, -2.0)])
def test_likelihood_is_a_density_on_the_unit_interval(mu, ln_b):
    steps = 200_000
    x = (np.arange(steps, dtype=np.float32) + 0.5) / steps
    stats = jnp.array([mu] * 3 + [ln_b] * 3)
    nll = logit_laplace_nll(stats, jnp.repeat(x[:, None], 3, -1))
    mass = np.exp(-np.asarray(nll, np.float64)).mean(0)
    np.testing.assert_allclose(mass, 1, atol=1e-4)


def test_likelihood_is_the_closed_form_of_float64():
    rng = np.random.default_rng(0)
    x, mu = rng.uniform(0.1, 0.9, (5, 3)), rng.normal(size=(5, 3))
    b = rng.uniform(0.2, 2, (5, 3))
    away = np.abs(np.log(x / (1 - x)) - mu)
    density = np.exp(-away / b) / (2 * b * x * (1 - x))
    stats = np.concatenate([mu, np.log(b)], -1).astype(np.float32)
    nll = logit_laplace_nll(stats, x.astype(np.float32))
    np.testing.assert_allclose(nll, -np.log(density), atol=1e-5)


def test_full_size_networks_have_the_published_parameters():
    params = jax.eval_shape(DVAE().init, KEY, jnp.zeros((1, 8, 8, 3)))["params"]
    counts = {
        net: sum(leaf.size for leaf in jax.tree.leaves(tree))
        for net, tree in params.items()
    }
    assert counts == {"encoder": 53_786_240, "decoder": 43_829_766}


def test_weights_start_as_published():
    model = SMALL.clone(vocab=64, n_hid=64, n_init=64)
    params = jax.jit(model.init)(KEY, pictures(1))["params"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        wanted = np.prod(leaf.shape[:-1]) ** -0.5 if leaf.ndim > 1 else 0
        std, error = np.sqrt(np.mean(np.square(leaf))), 5 / np.sqrt(2 * leaf.size)
        assert abs(std - wanted) <= error * wanted, jax.tree_util.keystr(path)


@pytest.mark.parametrize("patch_size, grid", [(2, (8, 16)), (16, (1, 2))])
def test_one_token_stands_for_one_patch(patch_size, grid):
    model = SMALL.clone(patch_size=patch_size)
    image = jnp.zeros((1, 16, 32, 3))
    out, _ = jax.eval_shape(model.init_with_output, KEY, image)
    assert out.logits.shape == (1, *grid, 32)
    assert out.stats.shape == (1, 16, 32, 6)
    assert out.reconstruction.shape == image.shape


@pytest.fixture(scope="module")
def tiny():
    """(images, output without a temperature, variables) of SMALL."""
    images = pictures()
    return images, *jax.jit(SMALL.init_with_output)(KEY, images)


def test_without_a_temperature_the_likeliest_tokens_are_painted(tiny):
    images, out, variables = tiny
    model = SMALL.bind(variables)
    ids = model.encode(images)
    assert ids.dtype == jnp.int32
    np.testing.assert_array_equal(ids, out.logits.argmax(-1))
    np.testing.assert_allclose(model.decode(ids), out.reconstruction, atol=1e-6)
    stats = model.stats(jax.nn.one_hot(ids, SMALL.vocab))
    np.testing.assert_allclose(stats, out.stats, atol=1e-6)


def test_draws_follow_the_key_and_every_parameter_learns_through_them(tiny):
    images, _, variables = tiny

    @jax.jit
    @jax.value_and_grad
    def loss(variables, key):
        out = SMALL.apply(variables, images, 0.5, rngs={"gumbel": key})
        return logit_laplace_nll(out.stats, images).mean()

    (one, grads), (same, _), (other, _) = (
        loss(variables, jax.random.fold_in(KEY, seed)) for seed in (1, 1, 2)
    )
    assert one == same != other
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(grads))


def test_halving_keeps_the_largest_and_doubling_repeats():
    x = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
    np.testing.assert_array_equal(halve(x), x[:, 1::2, 1::2])
    np.testing.assert_array_equal(halve(double(x)), x)
    np.testing.assert_array_equal(double(x)[:, 1::2, ::2], x)


def test_bfloat16_keeps_the_tokens_and_returns_float32(tiny):
    images, exact, variables = tiny
    out = jax.jit(SMALL.clone(dtype=jnp.bfloat16).apply)(variables, images)
    assert out.reconstruction.dtype == out.stats.dtype == jnp.float32
    assert np.mean(out.logits.argmax(-1) == exact.logits.argmax(-1)) >= 0.95


@pytest.mark.parametrize(
    "settings, shape, message",
    [
        ({"patch_size": 6}, (24, 24), "patch_size=6 is no power of two above 1"),
        ({"patch_size": 1}, (24, 24), "patch_size=1 is no power of two above 1"),
        ({"n_hid": 18}, (24, 24), "n_hid=18 is no multiple of 4"),
        ({}, (16, 17), "16x17; both sides must be multiples of patch_size=2"),
    ],
)
def test_misfits_are_refused_in_words(settings, shape, message):
    model = SMALL.clone(**settings)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, KEY, jnp.zeros((1, *shape, 3)))
