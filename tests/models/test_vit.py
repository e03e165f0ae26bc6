import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.models import positions
from beit_jax.models.vit import Encoder
from tests.models.small import IMAGE, SMALL, features, hidden, make, sizes, tokens

MASK = jnp.array([[1, 0, 0, 1, 0, 0]] * 4, bool)


def test_every_parameter_names_an_axis_for_every_dimension():
    boxed = sizes(Encoder(**SMALL, abs_pos_embed="learned", mask_token=True), IMAGE)
    specs, leaves = nn.get_partition_spec(boxed), nn.unbox(boxed)
    for spec, leaf in zip(jax.tree.leaves(specs), jax.tree.leaves(leaves), strict=True):
        assert len(spec) == leaf.ndim
    blocks = specs["blocks"]
    assert tuple(blocks["attn"]["qkv"]) == ("layers", "embed", None, "heads", None)
    assert tuple(blocks["mlp"]["fc2"]["kernel"]) == ("layers", "mlp", "embed")


@functools.cache
def gradients(**settings):
    """Of a loss whose drop paths are the same for all settings."""
    model, params = make(drop_path=0.5, **settings)

    @jax.jit
    @jax.grad
    def compute(params):
        return tokens(model, params, IMAGE, seed=5)[0].sum()

    return compute(params)


@pytest.mark.parametrize(
    "settings",
    [
        {"unroll": 2},
        {"remat": "dots"},
        {"remat": "full"},
        {"attention": "fused"},
        {"attention": "fused", "rel_pos_bias": "per_block"},
        {"attention": "fused", "rel_pos_bias": "none"},
    ],
    ids=str,
)
def test_loop_settings_change_no_number(settings):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-4),
        gradients(unroll=1, rel_pos_bias=settings.get("rel_pos_bias", "shared")),
        gradients(**settings),
    )


@pytest.mark.parametrize(
    "settings, blocks",
    [
        ({"depth": 4, "unroll": 1}, 1),
        ({"depth": 4, "unroll": 2}, 2),
        ({"depth": 4}, 4),
        ({"depth": 4, "remat": "dots"}, 1),
        ({"depth": 7}, 1),
    ],
    ids=str,
)
def test_an_iteration_of_the_loop_has_so_many_blocks(settings, blocks):
    """By itself the whole depth of a shallow network, where nothing is done twice."""
    model = Encoder(**SMALL | settings)
    program = str(jax.make_jaxpr(model.init)(jax.random.key(0), IMAGE))
    assert re.findall(r"unroll=(\d+)", program) == [str(blocks)]


def products(model, params) -> int:
    """Matrix products in the program that computes gradients."""

    def loss(params):
        return model.apply({"params": params}, IMAGE).tokens.sum()

    return str(jax.make_jaxpr(jax.grad(loss))(params)).count("= dot_general[")


def test_remat_computes_again_what_it_does_not_save():
    model, params = make()
    none, dots, full = (
        products(model.clone(remat=kind), params) for kind in ("none", "dots", "full")
    )
    assert dots == none + 2, "those of queries with keys, weights with values"
    assert full == none + 6


def test_drop_path_acts_in_training_only():
    model, params = make(drop_path=0.5)
    still = tokens(model, params, IMAGE)
    without = tokens(model.clone(drop_path=0.0), params, IMAGE, seed=0)
    np.testing.assert_array_equal(still, without)
    assert not np.allclose(still, tokens(model, params, IMAGE, seed=0))


def test_drop_path_rates_rise_linearly_from_zero():
    """A block returns its input where it drops both branches: rate**2 of the time."""
    model, params = make(depth=3, drop_path=0.8, taps=(0, 1, 2))
    images = jnp.tile(IMAGE, (250, 1, 1, 1))
    train = features(model, params, images, seed=0)
    before, after = hidden(train)[:-1], hidden(train)[1:]
    same = np.mean(np.all(before == after, axis=(2, 3)), axis=1)
    for rate, share in zip((0.4, 0.8), same, strict=True):
        chance = rate**2
        sigma = np.sqrt(chance * (1 - chance) / len(images))
        assert share == pytest.approx(chance, abs=3 * sigma)
    still = features(model, params, images)
    np.testing.assert_allclose(hidden(train)[0], hidden(still)[0], atol=1e-5)


def test_hidden_patches_are_not_seen():
    model, params = make(mask_token=True)
    seen = tokens(model, params, IMAGE, MASK)
    patches = jnp.repeat(jnp.repeat(MASK.reshape(4, 2, 3), 4, 1), 4, 2)[..., None]
    other = jnp.where(patches, -IMAGE, IMAGE)
    np.testing.assert_array_equal(seen, tokens(model, params, other, MASK))
    assert not np.allclose(seen, tokens(model, params, IMAGE))


def test_taps_return_the_outputs_of_their_blocks():
    model, params = make(taps=(1, 0), final_norm=False)
    out = features(model, params, IMAGE)
    assert hidden(out).shape == (2, 4, 7, 16)
    assert out.grid == (2, 3)
    np.testing.assert_array_equal(hidden(out)[0], out.tokens)
    assert not np.allclose(hidden(out)[0], hidden(out)[1])


def test_attention_weights_are_the_softmax_of_queries_and_keys():
    """Those of the second block, whose input is what comes out of the first."""
    model, params = make(taps=(0,), attends=(0, 4))
    out = features(model, params, IMAGE)
    blocks = jax.tree.map(lambda leaf: leaf[1], params["blocks"])
    norm, layer = blocks["norm1"], blocks["attn"]
    x = np.asarray(hidden(out)[0])
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = x * norm["scale"] + norm["bias"]
    query, key, _ = np.einsum("btd,dsak->sbatk", x, layer["qkv"])
    query = query + layer["q_bias"][:, None]
    index = positions.relative_position_index((2, 3))
    bias = params["rel_pos_bias"]["table"][index].transpose(2, 0, 1)
    logits = query @ key.swapaxes(-1, -2) / np.sqrt(8) + bias
    want = np.exp(logits - logits.max(-1, keepdims=True))
    want /= want.sum(-1, keepdims=True)
    assert out.attention.shape == (2, 4, 2, 2, 7)
    np.testing.assert_allclose(out.attention[1], want[:, :, [0, 4]], atol=1e-5)


def test_attention_weights_are_given_only_when_asked_for():
    model, params = make()
    plain, asked = (
        features(model.clone(attends=attends), params, IMAGE)
        for attends in ((), (0, 3))
    )
    assert plain.attention is None
    np.testing.assert_allclose(asked.attention.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(asked.tokens, plain.tokens, atol=1e-5)


def test_bfloat16_stays_near_float32():
    model, params = make(mask_token=True)
    params = jax.tree.map(lambda leaf: 0.5 * leaf, params)
    rng = np.random.default_rng(1)
    kernel = rng.normal(0, 0.3, (16, 32)).astype(np.float32)
    targets = rng.integers(0, 32, MASK.shape)

    def loss(params, model):
        patches = model.apply({"params": params}, IMAGE, MASK).tokens[:, 1:]
        assert patches.dtype == model.dtype
        logs = jax.nn.log_softmax(patches.astype(jnp.float32) @ kernel)
        nats = -jnp.take_along_axis(logs, targets[..., None], -1)[..., 0]
        return jnp.sum(nats, where=MASK) / MASK.sum()

    def flat(model):
        run = jax.jit(jax.value_and_grad(loss), static_argnums=1)
        nats, grads = run(params, model)
        return nats, np.concatenate([x.ravel() for x in jax.tree.leaves(grads)])

    (wanted, want), (nats, got) = flat(model), flat(model.clone(dtype=jnp.bfloat16))
    assert abs(nats - wanted) < 2e-2
    assert got @ want > 0.99 * np.linalg.norm(got) * np.linalg.norm(want)


@pytest.mark.parametrize(
    "settings, image, mask, message",
    [
        ({}, (4, 8, 13, 3), None, "8x13; both sides must be multiples of patch_size=4"),
        ({}, (4, 8, 12, 3), (4, 6), "mask_token=True"),
        ({"mask_token": True}, (4, 8, 12, 3), (4, 2, 3), r"must be bool\(4, 6\)"),
        ({"heads": 3}, (4, 8, 12, 3), None, "dim=16 is no multiple of heads=3"),
        ({"taps": (2,)}, (4, 8, 12, 3), None, "no block 2 to tap"),
        ({"rel_pos_bias": "own"}, (4, 8, 12, 3), None, "'own' is none of"),
        ({"abs_pos_embed": "rope"}, (4, 8, 12, 3), None, "'rope' .*'sincos'"),
        ({"init_as": "zeros"}, (4, 8, 12, 3), None, "init_as='zeros' is none of"),
        ({"remat": "all"}, (4, 8, 12, 3), None, "'all' .*'none', 'dots', 'full'"),
        ({"unroll": "all"}, (4, 8, 12, 3), None, "'all' is neither 'auto' nor"),
    ],
)
def test_misfits_are_refused_in_words(settings, image, mask, message):
    model = Encoder(**{**SMALL, **settings})
    mask = None if mask is None else jnp.zeros(mask, bool)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(image), mask)


@pytest.mark.parametrize("kind", ["none", "sincos"])
def test_positions_without_parameters_serve_any_grid(kind):
    model, params = make(rel_pos_bias="none", abs_pos_embed=kind)
    image = jnp.zeros((1, 20, 16, 3))
    out = features(model, params, image)
    assert out.grid == (5, 4)
    spread = np.std(out.tokens[0, 1:], axis=0).max()  # all patches look the same
    assert (spread > 1e-3) == (kind == "sincos")


def test_sincos_positions_are_those_of_a_learned_table_that_has_them():
    fixed, params = make(rel_pos_bias="none", abs_pos_embed="sincos")
    learned = fixed.clone(abs_pos_embed="learned")
    table = {"pos_embed": positions.sincos((2, 3), 16)}
    for image in (IMAGE, jnp.concatenate([IMAGE, IMAGE], axis=1)):
        want = tokens(learned, params | table, image)
        np.testing.assert_allclose(tokens(fixed, params, image), want, atol=1e-5)
