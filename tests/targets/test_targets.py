"""What masked patches must predict, for every target in the table."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax import lookup
from beit_jax.checkpoints.keeper import Checkpointer
from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.models.vqvae import VQVAE
from beit_jax.run.state import TrainState
from beit_jax.targets import TARGETS
from beit_jax.targets.pixels import Pixels
from beit_jax.targets.tokens import DTYPES, Tokens
from tests import tiny
from tests.tasks import runs

GRID, PATCH = (4, 4), 8


@functools.cache
def made(name: str):
    """(target, its frozen weights, images, what they want), of two images."""
    spec = {"name": name} | runs.TARGETS[name]
    target = lookup.build(TARGETS, spec, "targets", grid=GRID, patch_size=PATCH)
    shape = (2, *target.image_size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    frozen = target.frozen and target.frozen.load()
    return target, frozen, images, jax.jit(target)(frozen, images)


def perfect(target, wanted):
    """Predictions that say what is wanted."""
    return 50.0 * jax.nn.one_hot(wanted, target.outputs) if target.tokens else wanted


@pytest.mark.parametrize("name", TARGETS)
def test_every_patch_wants_something_of_the_promised_form(name):
    target, _, _, wanted = made(name)
    if target.tokens:
        assert wanted.shape == (2, 16) and wanted.dtype == jnp.int32
        assert wanted.min() >= 0 and wanted.max() < target.outputs
    else:
        assert wanted.shape == (2, 16, target.outputs)
        assert wanted.dtype == jnp.float32
    assert np.unique(wanted).size > 1


@pytest.mark.parametrize("name", TARGETS)
def test_a_patch_wants_the_same_whatever_the_batch(name):
    target, frozen, images, wanted = made(name)
    one = jax.jit(target)(frozen, images[1:])
    np.testing.assert_allclose(one, wanted[1:], rtol=1e-6)


@pytest.mark.parametrize("name", TARGETS)
def test_the_loss_is_least_where_the_prediction_is_right(name):
    target, _, _, wanted = made(name)
    right = target.loss(perfect(target, wanted), wanted)
    wrong = target.loss(perfect(target, wanted[::-1]), wanted)
    assert right.shape == wanted.shape[:2] and right.dtype == jnp.float32
    np.testing.assert_allclose(right, 0, atol=1e-6)
    assert wrong.mean() > 0.01


@pytest.mark.parametrize("name", TARGETS)
def test_the_best_prediction_has_the_form_of_what_is_wanted(name):
    target, _, _, wanted = made(name)
    best = target.best(perfect(target, wanted))
    assert best.dtype == wanted.dtype
    np.testing.assert_array_equal(best, wanted)


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_wanted_can_be_painted(name):
    target, frozen, images, wanted = made(name)
    picture = jax.jit(target.paint)(frozen, wanted, images)
    assert picture.shape == images.shape and picture.dtype == jnp.uint8


def test_an_encoder_alone_paints_grey():
    target, frozen, images, wanted = made("tokens")
    frozen = {"params": {"encoder": frozen["params"]["encoder"]}}
    assert (target.paint(frozen, wanted, images) == 128).all()


@pytest.mark.parametrize("normalize", [False, True])
def test_painting_pixels_gives_the_image_back(normalize):
    images = made("pixels")[2]
    target = Pixels(GRID, PATCH, normalize)
    wanted = target({}, images)
    np.testing.assert_array_equal(target.paint({}, wanted, images), images)


def test_normalized_patches_have_mean_0_and_unbiased_variance_1():
    wanted = Pixels(GRID, PATCH, normalize=True)({}, made("pixels")[2])
    np.testing.assert_allclose(wanted.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(wanted.var(-1, ddof=1), 1, atol=1e-4)


def test_a_patch_of_one_colour_is_all_zeros_when_normalized():
    image = np.full((1, 32, 32, 3), 77, np.uint8)
    np.testing.assert_allclose(
        Pixels(GRID, PATCH, normalize=True)({}, image), 0, atol=1e-3
    )


def test_pixels_of_a_patch_are_its_own_in_unit_range():
    _, _, images, wanted = made("pixels")
    second_row_first = images[0, PATCH : 2 * PATCH, :PATCH].reshape(-1)
    np.testing.assert_allclose(wanted[0, 4], second_row_first / 127.5 - 1, atol=1e-6)


def test_pixel_loss_is_the_mean_square():
    target = made("pixels")[0]
    predicted = np.zeros((3, target.outputs), np.float32)
    wanted = np.full_like(predicted, 0.5)
    np.testing.assert_allclose(target.loss(predicted, wanted), np.full(3, 0.25))


def test_l1_loss_is_the_mean_absolute_error():
    target = Pixels(GRID, PATCH, loss="l1")
    predicted = np.zeros((3, target.outputs), np.float32)
    wanted = np.full_like(predicted, -0.5)
    np.testing.assert_allclose(target.loss(predicted, wanted), np.full(3, 0.5))
    with pytest.raises(ValueError, match="loss='l2' is none of mse, l1"):
        Pixels(GRID, PATCH, loss="l2")


def test_token_loss_is_the_cross_entropy_in_nats():
    target = made("tokens")[0]
    logits = np.zeros((2, target.outputs), np.float32)
    wanted = np.array([0, 3], np.int32)
    nats = np.full(2, np.log(target.outputs))
    np.testing.assert_allclose(target.loss(logits, wanted), nats, rtol=1e-6)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """(work directory of a tokenizer's run, its parameters and codebook)."""
    workdir = tmp_path_factory.mktemp("tokenizer")
    config = tiny.config("tokenizer")
    _, params, ctx, _ = runs.start(config)
    save(workdir, config, params, ctx.model_state)
    return workdir, jax.tree.map(jnp.asarray, {"params": params, **ctx.model_state})


def save(workdir, config, params, model_state):
    step = np.int32(3)
    now = TrainState(step, params, opt_state={}, model_state=model_state, ema=None)
    with Checkpointer(workdir, config, card={}) as run:
        run.save(3, now, {"step": 3, "examples": 20})


def test_tokens_are_those_of_the_tokenizer_that_was_saved(tokenizer):
    workdir, variables = tokenizer
    target = Tokens(GRID, PATCH, str(workdir))
    images = made("tokens")[2]
    tokens = jax.jit(target)(target.frozen.load(), images)
    model = VQVAE(patch_size=PATCH, **tiny.VQVAE)
    floats = PIXEL_SPACES["half"].to_float(images)
    ids = jax.jit(lambda x: model.apply(variables, x, method=model.encode))(floats)
    np.testing.assert_array_equal(tokens, ids.reshape(2, 16))
    assert target.outputs == tiny.VQVAE["vocab"]


def test_a_tokenizer_of_another_grid_is_refused_with_what_fits(tokenizer):
    workdir, _ = tokenizer
    words = (
        "was trained on 32x32 px and gives 4x4 whole tokens of 8x8 px, but there are "
        "7x7 patches; let it see 56x56 px by task.target.image_size=56, or choose"
    )
    with pytest.raises(ValueError, match=words):
        Tokens((7, 7), 16, str(workdir))
    assert Tokens((7, 7), 16, str(workdir), image_size=56).image_size == (56, 56)
    with pytest.raises(ValueError, match="would see 40x40 px and gives 5x5 whole tok"):
        Tokens((7, 7), 16, str(workdir), image_size=40)
    with pytest.raises(ValueError, match="image_size='56' must be a side in pixels"):
        Tokens((7, 7), 16, str(workdir), image_size="56")


def test_a_view_may_be_no_square(tokenizer):
    target = Tokens((2, 5), 16, str(tokenizer[0]), image_size=(16, 40))
    ids = target(target.frozen.load(), np.zeros((1, 16, 40, 3), np.uint8))
    assert ids.shape == (1, 10)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_tokenizer_computes_in_the_dtype_asked_for(dtype):
    target = Tokens(GRID, PATCH, "untrained", dtype=dtype, untrained=tiny.VQVAE)
    frozen = target.frozen.shapes()
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), np.uint8)
    program = str(jax.make_jaxpr(target)(frozen, images))
    found = set(re.findall(r"(\w+)\[\S+\] = conv_general_dilated", program))
    assert found == {{"float32": "f32", "bfloat16": "bf16"}[dtype]}


def test_a_run_of_another_task_is_no_tokenizer(tmp_path):
    save(tmp_path, tiny.config("classify"), {"head": np.zeros(3)}, {})
    with pytest.raises(ValueError, match="is of task 'classify'; the target needs"):
        Tokens(GRID, PATCH, str(tmp_path))


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=f"no checkpoint in {re.escape(str(tmp_path))}"
    ):
        Tokens(GRID, PATCH, str(tmp_path))


def test_settings_of_a_random_tokenizer_need_one(tokenizer):
    with pytest.raises(ValueError, match="untrained is for checkpoint='untrained'"):
        Tokens(GRID, PATCH, str(tokenizer[0]), untrained={"vocab": 8})
    with pytest.raises(ValueError, match="takes no setting 'vocb'.*'vocab'"):
        Tokens(GRID, PATCH, "untrained", untrained={"vocb": 8})


def test_the_random_tokenizer_is_always_the_same():
    target, frozen, *_ = made("tokens")
    jax.tree.map(np.testing.assert_array_equal, frozen, target.frozen.load())
