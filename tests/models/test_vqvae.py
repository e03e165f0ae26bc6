import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beit_jax.models.vqvae import VQVAE, depth_to_space, space_to_depth

MODEL = VQVAE(vocab=64, code_dim=8, width=16, res_blocks=1, decay=0.9)
KEY = jax.random.key(0)


def pictures(count=4, size=16):
    """Smooth random images in [-1, 1]."""
    coarse = jax.random.uniform(KEY, (count, 4, 4, 3), minval=-1)
    return jax.image.resize(coarse, (count, size, size, 3), "linear")


def trained(model, images, steps):
    """Fits a model -> (its variables, reconstruction error before and after)."""
    variables = jax.jit(model.init)(KEY, images)
    params, codebook = variables["params"], variables["codebook"]
    tx = optax.adam(5e-3)

    def loss(params, codebook, key):
        out, state = model.apply(
            {"params": params, "codebook": codebook},
            images,
            train=True,
            mutable=["codebook"],
            rngs={"codebook": key},
        )
        error = jnp.mean(jnp.square(out.reconstruction - images))
        return error + out.quantized.loss.mean(), (error, state["codebook"])

    @jax.jit
    def step(params, opt_state, codebook, key):
        grads, (error, codebook) = jax.grad(loss, has_aux=True)(params, codebook, key)
        updates, opt_state = tx.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, codebook, error

    opt_state, errors = tx.init(params), []
    for i in range(steps):
        key = jax.random.fold_in(KEY, i)
        params, opt_state, codebook, error = step(params, opt_state, codebook, key)
        errors.append(float(error))
    return {"params": params, "codebook": codebook}, errors[0], errors[-1]


def test_fits_a_few_images_and_paints_them_from_their_tokens():
    images = pictures()
    variables, before, after = trained(MODEL, images, steps=100)
    assert after < 0.15 * before
    ids = MODEL.apply(variables, images, method="encode")
    assert ids.shape == (4, 4, 4)
    assert ids.dtype == jnp.int32
    painted = MODEL.apply(variables, ids, method="decode")
    out = MODEL.apply(variables, images)
    np.testing.assert_array_equal(ids, out.quantized.ids)
    np.testing.assert_allclose(painted, out.reconstruction, atol=1e-5)
    assert jnp.mean(jnp.square(painted - images)) < 0.2 * before


@pytest.mark.parametrize("patch_size, grid", [(2, (8, 16)), (16, (1, 2))])
def test_one_token_stands_for_one_patch(patch_size, grid):
    model = VQVAE(vocab=4, code_dim=2, width=16, res_blocks=1, patch_size=patch_size)
    image = jnp.zeros((1, 16, 32, 3))
    out, _ = jax.eval_shape(model.init_with_output, KEY, image)
    assert out.quantized.ids.shape == (1, *grid)
    assert out.reconstruction.shape == image.shape


def test_bfloat16_returns_float32_pixels():
    model = MODEL.clone(dtype=jnp.bfloat16)
    out, variables = jax.eval_shape(model.init_with_output, KEY, pictures())
    assert out.reconstruction.dtype == out.quantized.z_q.dtype == jnp.float32
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables["params"]))


def test_depth_and_space_are_inverse():
    x = jax.random.normal(KEY, (2, 4, 6, 3))
    y = space_to_depth(x)
    np.testing.assert_array_equal(y[0, 1, 2], x[0, 2:4, 4:6].reshape(-1))
    np.testing.assert_array_equal(depth_to_space(y), x)


@pytest.mark.parametrize(
    "settings, size, message",
    [
        ({"patch_size": 6}, 24, "patch_size=6 is no power of two"),
        ({"patch_size": 1}, 24, "patch_size=1 is no power of two"),
        ({"width": 18, "patch_size": 8}, 24, "width=18 cannot be halved 2 times"),
        ({}, 18, "18x18; both sides must be multiples of patch_size=4"),
    ],
)
def test_misfits_are_refused_in_words(settings, size, message):
    model = MODEL.clone(**settings)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, KEY, jnp.zeros((1, size, size, 3)))
