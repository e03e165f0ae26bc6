import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.models import adapt
from beit_jax.models.vit import VARIANTS, Encoder

SMALL = {"grid": (2, 3), "dim": 16, "depth": 2, "heads": 2, "patch_size": 4}
IMAGE = jax.random.normal(jax.random.key(7), (4, 8, 12, 3))
MASK = jnp.array([[1, 0, 0, 1, 0, 0]] * 4, bool)


def make(**settings):
    """An encoder, and parameters that are all random: zero tables hide mistakes."""
    model = Encoder(**{**SMALL, **settings})
    shapes = nn.unbox(sizes(model, IMAGE))
    rng = np.random.default_rng(0)
    return model, jax.tree.map(
        lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), shapes
    )


def features(model, params, *args, seed=None):
    """What the model returns; with a seed, as in training."""

    @jax.jit
    def apply(params, args):
        rngs = {} if seed is None else {"drop_path": jax.random.key(seed)}
        train = seed is not None
        return model.apply({"params": params}, *args, train=train, rngs=rngs)

    return apply(params, args)


def tokens(*args, **kwargs):
    return features(*args, **kwargs).tokens


def sizes(model, image):
    return jax.eval_shape(model.init, jax.random.key(0), image)["params"]


def test_base_has_the_published_number_of_parameters():
    model = Encoder(grid=(14, 14), mask_token=True, **VARIANTS["base"])
    shapes = nn.unbox(sizes(model, jnp.zeros((1, 224, 224, 3))))
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert count + 768 * 8192 + 8192 == 91_965_776  # with its prediction layer


def test_every_parameter_names_an_axis_for_every_dimension():
    boxed = sizes(Encoder(**SMALL, abs_pos_embed=True, mask_token=True), IMAGE)
    specs, leaves = nn.get_partition_spec(boxed), nn.unbox(boxed)
    for spec, leaf in zip(jax.tree.leaves(specs), jax.tree.leaves(leaves), strict=True):
        assert len(spec) == leaf.ndim
    blocks = specs["blocks"]
    assert tuple(blocks["attn"]["qkv"]) == ("layers", "embed", None, "heads", None)
    assert tuple(blocks["mlp"]["fc2"]["kernel"]) == ("layers", "mlp", "embed")


def test_weights_start_as_in_the_official_code():
    model = Encoder(grid=(8, 8), dim=192, depth=4, heads=3, mask_token=True)
    image = jnp.zeros((1, 128, 128, 3))
    params = nn.unbox(jax.jit(model.init)(jax.random.key(0), image))["params"]
    blocks, std = params["blocks"], 0.0107914
    assert np.std(params["patch_embed"]["proj"]["kernel"]) == pytest.approx(std, 0.01)
    assert np.max(np.abs(params["patch_embed"]["proj"]["kernel"])) <= 0.02
    for layer in range(4):
        attn, mlp = (
            jax.tree.map(lambda x, layer=layer: np.std(x[layer]), blocks[part])
            for part in ("attn", "mlp")
        )
        assert attn["qkv"] == pytest.approx(std, 0.02)
        assert mlp["fc1"]["kernel"] == pytest.approx(std, 0.02)
        rescaled = std / np.sqrt(2 * (layer + 1))
        assert attn["proj"]["kernel"] == pytest.approx(rescaled, 0.02)
        assert mlp["fc2"]["kernel"] == pytest.approx(rescaled, 0.02)
    assert np.all(blocks["gamma_1"] == np.float32(0.1))
    assert not np.any(params["rel_pos_bias"]["table"])


@pytest.mark.parametrize("settings", [{"unroll": 2}, {"remat": True}])
def test_loop_settings_change_no_number(settings):
    plain, params = make(drop_path=0.5)

    def gradients(model):
        def loss(params):
            return tokens(model, params, IMAGE, seed=5)[0].sum()

        return jax.jit(jax.grad(loss))(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-4),
        gradients(plain),
        gradients(plain.clone(**settings)),
    )


def test_drop_path_acts_in_training_only():
    model, params = make(drop_path=0.5)
    still = tokens(model, params, IMAGE)
    without = tokens(model.clone(drop_path=0.0), params, IMAGE, seed=0)
    np.testing.assert_array_equal(still, without)
    assert not np.allclose(still, tokens(model, params, IMAGE, seed=0))


def test_drop_path_rates_rise_from_zero():
    model, params = make(drop_path=0.9, taps=(0, 1))
    train = features(model, params, IMAGE, seed=0).hidden
    still = features(model, params, IMAGE).hidden
    np.testing.assert_allclose(train[0], still[0], atol=1e-5)
    assert not np.allclose(train[1], still[1])


def test_hidden_patches_are_not_seen():
    model, params = make(mask_token=True)
    seen = tokens(model, params, IMAGE, MASK)
    patches = jnp.repeat(jnp.repeat(MASK.reshape(4, 2, 3), 4, 1), 4, 2)[..., None]
    other = jnp.where(patches, -IMAGE, IMAGE)
    np.testing.assert_array_equal(seen, tokens(model, params, other, MASK))
    assert not np.allclose(seen, tokens(model, params, IMAGE))


def test_copies_of_the_shared_table_compute_the_same():
    model, params = make()
    copied = adapt.shared_to_per_block(params, model.depth)
    own = model.clone(rel_pos_bias="per_block")
    wanted = nn.unbox(sizes(own, IMAGE))
    assert jax.tree.map(jnp.shape, copied) == jax.tree.map(jnp.shape, wanted)
    np.testing.assert_allclose(
        tokens(own, copied, IMAGE), tokens(model, params, IMAGE), atol=1e-5
    )
    with pytest.raises(ValueError, match="no shared table"):
        adapt.shared_to_per_block(copied, model.depth)


def test_taps_return_the_outputs_of_their_blocks():
    model, params = make(taps=(1, 0), final_norm=False)
    out = features(model, params, IMAGE)
    assert out.hidden.shape == (2, 4, 7, 16)
    assert out.grid == (2, 3)
    np.testing.assert_array_equal(out.hidden[0], out.tokens)
    assert not np.allclose(out.hidden[0], out.hidden[1])


def test_bfloat16_stays_near_float32():
    model, params = make()
    short = tokens(model.clone(dtype=jnp.bfloat16), params, IMAGE)
    assert short.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        short.astype(np.float32), tokens(model, params, IMAGE), atol=0.1
    )


@pytest.mark.parametrize(
    "settings, image, mask, message",
    [
        ({}, (4, 8, 13, 3), None, "8x13; both sides must be multiples of patch_size=4"),
        ({}, (4, 8, 8, 3), None, "2x2 patches, .* for 2x3; give images of 8x12"),
        ({}, (4, 8, 12, 3), (4, 6), "mask_token=True"),
        ({"mask_token": True}, (4, 8, 12, 3), (4, 2, 3), r"must be bool\(4, 6\)"),
        ({"heads": 3}, (4, 8, 12, 3), None, "dim=16 is no multiple of heads=3"),
        ({"taps": (2,)}, (4, 8, 12, 3), None, "no block 2 to tap"),
        ({"rel_pos_bias": "own"}, (4, 8, 12, 3), None, "'own' is none of"),
    ],
)
def test_misfits_are_refused_in_words(settings, image, mask, message):
    model = Encoder(**{**SMALL, **settings})
    mask = None if mask is None else jnp.zeros(mask, bool)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(image), mask)


def test_without_position_tables_any_grid_will_do():
    model, params = make(rel_pos_bias="none")
    assert features(model, params, jnp.zeros((1, 20, 16, 3))).grid == (5, 4)
