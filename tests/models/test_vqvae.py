import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beit_jax.models.quantizer import Quantizer
from beit_jax.models.vqvae import VQVAE
from beit_jax.models.vqvae_layers import (
    NETWORKS,
    ConvTranspose,
    depth_to_space,
    space_to_depth,
)

SIZE = {"vocab": 64, "code_dim": 8, "width": 16, "res_blocks": 1}
MODEL = VQVAE(**SIZE)
KEY = jax.random.key(0)


def pictures(count=4, size=16):
    """Smooth random images in [-1, 1]."""
    coarse = jax.random.uniform(KEY, (count, 4, 4, 3), minval=-1)
    return jax.image.resize(coarse, (count, size, size, 3), "linear")


def trained(model, images, steps):
    """Fits a model -> (its variables, reconstruction error before and after)."""
    variables = dict(jax.jit(model.init)(KEY, images))
    params = variables.pop("params")
    tx = optax.adam(5e-3)

    def loss(params, state, key):
        out, state = model.apply(
            {"params": params, **state},
            images,
            train=True,
            mutable=list(state),
            rngs={"codebook": key},
        )
        error = jnp.mean(jnp.square(out.reconstruction - images))
        return error + out.quantized.loss.mean(), (error, dict(state))

    @jax.jit
    def step(params, opt_state, state, key):
        grads, (error, state) = jax.grad(loss, has_aux=True)(params, state, key)
        updates, opt_state = tx.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, state, error

    opt_state, errors = tx.init(params), []
    for i in range(steps):
        key = jax.random.fold_in(KEY, i)
        params, opt_state, variables, error = step(params, opt_state, variables, key)
        errors.append(float(error))
    return {"params": params, **variables}, errors[0], errors[-1]


@pytest.mark.parametrize(
    "settings, share",
    [
        ({"decay": 0.9}, 0.2),
        ({"decay": 0.9, "network": "convolutions"}, 0.2),
        ({"learning": "gradient"}, 0.4),
    ],
    ids=["patches", "convolutions", "gradient"],
)
def test_fits_a_few_images_and_paints_them_from_their_tokens(settings, share):
    model, images = VQVAE(**SIZE, **settings), pictures()
    variables, before, after = trained(model, images, steps=80)
    assert after < share * before
    encode, decode = (
        jax.jit(functools.partial(model.apply, method=name))
        for name in ("encode", "decode")
    )
    ids = encode(variables, images)
    assert ids.shape == (4, 4, 4)
    assert ids.dtype == jnp.int32
    painted, out = decode(variables, ids), jax.jit(model.apply)(variables, images)
    np.testing.assert_array_equal(ids, out.quantized.ids)
    np.testing.assert_allclose(painted, out.reconstruction, atol=1e-5)
    assert jnp.mean(jnp.square(painted - images)) < 1.3 * share * before


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("patch_size, grid", [(2, (8, 16)), (16, (1, 2))])
def test_one_token_stands_for_one_patch(patch_size, grid, network):
    model = VQVAE(**SIZE, patch_size=patch_size, network=network)
    image = jnp.zeros((1, 16, 32, 3))
    out, _ = jax.eval_shape(model.init_with_output, KEY, image)
    assert out.quantized.ids.shape == (1, *grid)
    assert out.reconstruction.shape == image.shape


@pytest.mark.parametrize("network", NETWORKS)
def test_bfloat16_returns_float32_pixels(network):
    model = MODEL.clone(dtype=jnp.bfloat16, network=network)
    out, variables = jax.eval_shape(model.init_with_output, KEY, pictures())
    assert out.reconstruction.dtype == out.quantized.z_q.dtype == jnp.float32
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables["params"]))


def test_depth_and_space_are_inverse():
    x = jax.random.normal(KEY, (2, 4, 6, 3))
    y = space_to_depth(x)
    np.testing.assert_array_equal(y[0, 1, 2], x[0, 2:4, 4:6].reshape(-1))
    np.testing.assert_array_equal(depth_to_space(y), x)


def test_transposed_convolution_scatters_each_pixel_over_4x4():
    x = jax.random.normal(KEY, (2, 3, 4, 5))
    model = ConvTranspose(6)
    params = model.init(KEY, x)["params"] | {"bias": jnp.arange(6.0)}
    wanted = np.zeros((2, 2 * 3 + 2, 2 * 4 + 2, 6)) + np.arange(6)
    for i in range(3):
        for j in range(4):
            square = np.einsum("bc,klcf->bklf", x[:, i, j], params["kernel"])
            wanted[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += square
    wanted = wanted[:, 1:-1, 1:-1]
    np.testing.assert_allclose(model.apply({"params": params}, x), wanted, atol=1e-5)


def test_layers_of_convolutions_keep_the_scale():
    x = jax.random.normal(KEY, (1, 16, 16, 64))
    y, _ = ConvTranspose(32).init_with_output(KEY, x)
    np.testing.assert_allclose(jnp.std(y[:, 1:-1, 1:-1]), 1, rtol=0.1)


def test_a_narrow_residual_block_has_fewer_parameters():
    def count(**settings):
        made = jax.eval_shape(MODEL.clone(**settings).init, KEY, pictures())
        block = made["params"]["encoder"]["block_0"]
        return sum(p.size for p in jax.tree.leaves(block))

    assert count() == 9 * 16 * 16 + 16 + 16 * 16 + 16
    assert count(res_hidden=4) == 9 * 16 * 4 + 4 + 4 * 16 + 16
    assert count(res_hidden=4, network="convolutions") == 9 * 16 * 4 + 4 * 16


def test_every_setting_of_the_quantizer_arrives_there():
    own = ("dim", "parent", "name")
    names = {field.name for field in dataclasses.fields(Quantizer)}.difference(own)
    given = {name: f"a {name}" for name in names}  # nothing is run, so nothing refused
    quantizer = MODEL.clone(**given).bind({}).quantizer
    assert {name: getattr(quantizer, name) for name in names} == given
    assert quantizer.dim == MODEL.code_dim


@pytest.mark.parametrize(
    "settings, size, message",
    [
        ({"patch_size": 6}, 24, "patch_size=6 is no power of two"),
        ({"patch_size": 1}, 24, "patch_size=1 is no power of two"),
        ({"width": 18, "patch_size": 8}, 24, "width=18 cannot be halved 2 times"),
        ({"network": "vit"}, 24, "no 'vit' in network; it has convolutions, patches"),
        ({}, 18, "18x18; both sides must be multiples of patch_size=4"),
    ],
)
def test_misfits_are_refused_in_words(settings, size, message):
    model = MODEL.clone(**settings)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, KEY, jnp.zeros((1, size, size, 3)))
