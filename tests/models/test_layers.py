import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from beit_jax import sharding
from beit_jax.models.layers import Attention, DropPath, Mlp, PatchEmbed
from beit_jax.models.products import product


def drop(rate, batch=4000):
    x = jnp.ones((batch, 2, 3))
    return DropPath().apply({}, x, rate, rngs={"drop_path": jax.random.key(0)})


def test_drop_path_drops_whole_examples_and_keeps_the_mean():
    y = np.array(drop(0.25))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert np.all(y == y[:, :1, :1])
    assert abs(y[:, 0, 0].mean() - 1) < 3 * np.sqrt(0.25 / 0.75 / len(y))


def test_drop_path_at_rate_zero_is_the_identity():
    np.testing.assert_array_equal(drop(0.0), 1)


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_attention_has_no_key_bias(qkv_bias):
    layer, x = Attention(2, qkv_bias), jnp.zeros((1, 5, 8))
    shapes = nn.unbox(jax.eval_shape(layer.init, jax.random.key(1), x, None, 1.0))
    biases = {"q_bias", "v_bias"} if qkv_bias else set()
    assert set(shapes["params"]) == {"qkv", "proj"} | biases


def attention(kernel, x, qkv_bias=True, **biases):
    """Two heads on (B, T, D), with random values where nothing is given."""
    rng = np.random.default_rng(0)
    dim = x.shape[-1]
    params = {"qkv": kernel, "proj": {"kernel": rng.normal(size=(2, dim // 2, dim))}}
    params["proj"]["bias"] = np.zeros(dim)
    logits = rng.normal(size=(2, x.shape[1], x.shape[1]))
    layer = Attention(2, qkv_bias)
    return layer.apply({"params": params | biases}, x, logits, 1.0)[0]


def test_a_bias_of_the_keys_would_change_nothing():
    """A feature that is always 1 gives each projection a bias of its own."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3, 5, 8)).astype(np.float32)
    x[..., 0] = 1
    kernel = rng.normal(size=(8, 3, 2, 4)).astype(np.float32)
    outputs = []
    for part in (None, 0, 1, 2):  # query, key, value
        biased = kernel.copy()
        if part is not None:
            biased[0, part] += 3 * rng.normal(size=(2, 4))
        outputs.append(attention(biased, x, qkv_bias=False))
    plain, query, key, value = outputs
    np.testing.assert_allclose(key, plain, atol=1e-4)
    assert min(np.abs(other - plain).max() for other in (query, value)) > 0.1


def test_attention_without_biases_is_that_with_zeros():
    rng = np.random.default_rng(1)
    x, kernel = rng.normal(size=(3, 5, 8)), rng.normal(size=(8, 3, 2, 4))
    zeros = {"q_bias": np.zeros((2, 4)), "v_bias": np.zeros((2, 4))}
    np.testing.assert_array_equal(
        attention(kernel, x, qkv_bias=False), attention(kernel, x, **zeros)
    )


def test_fine_tuning_starts_the_patches_as_pytorch_does():
    layer, image = PatchEmbed(512, 8, torch_init=True), jnp.zeros((1, 8, 8, 3))
    proj = nn.unbox(layer.init(jax.random.key(0), image))["params"]["proj"]
    bound = (3 * 8 * 8) ** -0.5
    for leaf in proj.values():
        assert 0.95 * bound < np.abs(leaf).max() <= bound
        assert np.std(leaf) == pytest.approx(bound / np.sqrt(3), rel=0.1)


def test_gelu_is_the_exact_one():
    x = np.linspace(-4, 4, 9, dtype=np.float32)[:, None]
    one = {"kernel": np.ones((1, 1)), "bias": np.zeros(1)}
    y = Mlp(hidden=1).apply({"params": {"fc1": one, "fc2": one}}, x, 1.0)
    np.testing.assert_allclose(y, x * scipy.stats.norm.cdf(x), atol=1e-6)


@pytest.mark.parametrize(
    "spec",
    ["ni,io->no", "ni,iaj->naj", "nak,akd->nd", "nyxc,yxcd->nd"]
    + ["bqak,bsak->baqs", "baqs,bsak->bqak"],
)
def test_product_has_the_gradients_of_einsum(spec):
    sizes = dict(zip("niajbqskodyxc", range(2, 15), strict=True))
    left, right, out = spec.replace("->", ",").split(",")
    rng = np.random.default_rng(0)
    x, y, g = (
        rng.normal(size=[sizes[i] for i in part]).astype(np.float32)
        for part in (left, right, out)
    )

    def gradients(multiply):
        weighed = jax.grad(lambda x, y: jnp.sum(g * multiply(x, y)), (0, 1))
        return jax.jit(weighed)(x, y)

    wanted = gradients(lambda x, y: jnp.einsum(spec, x, y))
    exact = gradients(lambda x, y: product(spec, x, y, jnp.float32))
    short = gradients(lambda x, y: product(spec, x, y, jnp.bfloat16))
    for want, got, rounded in zip(wanted, exact, short, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-5)
        np.testing.assert_allclose(rounded, want, atol=0.03 * np.abs(want).max())


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_a_gradient_can_be_compiled_for_another_platform(platform):
    """The CPU's layouts are its own, whatever process a program is made in."""
    gradients = jax.jit(
        jax.grad(lambda x, y: product("ni,io->no", x, y, jnp.bfloat16).sum(), (0, 1))
    )
    x, y = jnp.ones((8, 16)), jnp.ones((16, 4))
    made = jax.export.export(gradients, platforms=[platform])(x, y)
    assert "LayoutConstraint" not in made.mlir_module()
    with jax.set_mesh(sharding.make_mesh({}, jax.devices()[:1])):
        assert "LayoutConstraint" in gradients.lower(x, y).as_text()  # here it is fast
