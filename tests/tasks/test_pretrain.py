"""Masked image modelling: what the loss sees, and what it must not see."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beit_jax import tasks
from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.targets import TARGETS
from beit_jax.tasks.pretrain import masked_slots
from beit_jax.train import train
from tests import tiny
from tests.tasks import runs

PATCH = 8


@functools.cache
def start(target: str):
    """(task, parameters, context, 6 examples with 1..6 masked patches, gradients).

    The last maps a batch to ((loss, aux), gradients).
    """
    task, params, ctx, batch = runs.start(runs.config("pretrain", target), 6)
    compute = jax.jit(jax.value_and_grad(task.train_loss, has_aux=True))
    return task, params, ctx, batch, lambda batch: compute(params, batch, ctx)


def losses(target: str):
    """The batch of `start`, and batch -> loss as a float."""
    *_, batch, gradients = start(target)
    return batch, lambda batch: float(gradients(batch)[0][0])


def pixels_of(mask: np.ndarray) -> np.ndarray:
    """(B, h, w) patches -> (B, H, W, 1) pixels."""
    return mask.repeat(PATCH, 1).repeat(PATCH, 2)[..., None]


def test_slots_hold_each_masked_patch_once():
    mask = np.random.default_rng(0).random((50, 20)) < 0.3
    slots = int(mask.sum(1).max())
    index, used = masked_slots(jnp.asarray(mask), slots)
    assert index.shape == used.shape == (50, slots)
    for row, at, real in zip(mask, np.asarray(index), np.asarray(used), strict=True):
        np.testing.assert_array_equal(at[real == 1], np.flatnonzero(row))
        assert not row[at[real == 0]].any()


@pytest.mark.parametrize("target", TARGETS)
def test_what_hidden_patches_show_does_not_reach_the_prediction(target):
    batch, loss = losses(target)
    hidden = pixels_of(batch["mask"])
    other = batch | {"image": np.where(hidden, 255 - batch["image"], batch["image"])}
    assert loss(other) == loss(batch)
    seen = batch | {"image": np.where(hidden, batch["image"], 255 - batch["image"])}
    assert loss(seen) != loss(batch)


def test_targets_of_unmasked_patches_do_not_change_the_loss():
    batch, loss = losses("pixels")
    hidden, target = pixels_of(batch["mask"]), batch["token_image"]
    other = batch | {"token_image": np.where(hidden, target, 255 - target)}
    assert loss(other) == loss(batch)
    wrong = batch | {"token_image": np.where(hidden, 255 - target, target)}
    assert loss(wrong) != loss(batch)


@pytest.mark.parametrize("target", TARGETS)
def test_predicting_masked_patches_only_equals_predicting_all(target):
    task, params, ctx, batch, gradients = start(target)
    mask = batch["mask"].reshape(6, -1)

    @jax.jit
    def predict_all(image):
        image = PIXEL_SPACES["half"].to_float(image)
        features = task.encoder.apply({"params": params["encoder"]}, image, mask)
        return task.network.output.apply({"params": params}, features)

    everywhere = predict_all(batch["image"])
    wanted = jax.jit(task.target)(ctx.frozen.get("target"), batch["token_image"])
    mean = jnp.mean(task.target.loss(everywhere, wanted), where=mask)
    np.testing.assert_allclose(gradients(batch)[0][0], mean, rtol=1e-5)
    sums = jax.jit(task.eval_step)(params, batch, ctx)
    if task.target.tokens:
        hits = task.target.best(everywhere) == wanted
        share, of = sums["token_share"]
        np.testing.assert_allclose(sums["accuracy"][0], hits[mask].sum())
        np.testing.assert_array_equal(
            share, np.bincount(wanted[mask], minlength=task.target.outputs)
        )
        assert of == mask.sum()


@pytest.mark.parametrize("target", TARGETS)
def test_a_batch_without_masked_patches_changes_nothing(target):
    *_, batch, gradients = start(target)
    empty = batch | {"mask": np.zeros_like(batch["mask"])}
    (loss, _), grads = gradients(empty)
    assert loss == 0
    for grad in jax.tree.leaves(grads):
        np.testing.assert_array_equal(grad, 0)


def test_accumulated_gradients_equal_those_of_one_batch():
    """With three parts that weigh 5, 7 and 9 masked patches."""
    task, params, ctx, batch, gradients = start("pixels")
    assert [batch["mask"][i::3].sum() for i in range(3)] == [5, 7, 9]
    changes = {"optim__accumulate": 3, "optim__clip_norm": 0.0, "optim__b1": 0.0}
    config = runs.config("pretrain", "pixels", **changes)
    now, update = runs.updating(task, config, params, ctx)
    now, sums = update(now, ctx.frozen, batch)
    (loss, aux), wanted = gradients(batch)
    runs.assert_gradients_equal(optax.tree.get(now.opt_state, "mu"), wanted)
    np.testing.assert_allclose(sums["loss"][0] / sums["loss"][1], loss, rtol=1e-6)
    assert aux.metrics.keys() < sums.keys()
    for name, (total, weight) in aux.metrics.items():
        np.testing.assert_allclose(sums[name][0], total, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(sums[name][1], weight, err_msg=name)


def test_a_single_part_is_the_whole_batch():
    _, params, ctx, batch, gradients = start("pixels")
    changes = {"optim__clip_norm": 0.0, "optim__b1": 0.0}
    config = runs.config("pretrain", "pixels", **changes)
    now, update = runs.updating(tasks.build(config), config, params, ctx)
    now, _ = update(now, ctx.frozen, batch)
    wanted = gradients(batch)[1]
    runs.assert_gradients_equal(optax.tree.get(now.opt_state, "mu"), wanted)


def test_the_best_blind_guess_has_its_closed_form():
    task = start("tokens")[0]
    share = np.zeros(task.target.outputs)
    share[:2] = 6, 2
    sums = {"loss": (8.0, 8.0), "accuracy": (2.0, 8.0), "token_share": (share, 8.0)}
    numbers = runs.metrics(task, sums, sums)
    assert numbers["loss"] == 1 and numbers["accuracy"] == 0.25
    assert numbers["unigram_accuracy"] == 0.75
    assert numbers["chance_accuracy"] == 1 / task.target.outputs
    entropy = -0.75 * np.log(0.75) - 0.25 * np.log(0.25)
    np.testing.assert_allclose(numbers["unigram_loss"], entropy, rtol=1e-12)
    assert numbers["tokens"] == 16


@pytest.mark.parametrize(
    "changes, progress, names",
    [
        ({}, 1.0, []),
        ({"loss": 2.9}, 0.5, []),
        ({"loss": 3.1}, 0.5, ["loss"]),
        ({"accuracy": 0.09}, 0.2, ["accuracy"]),
        ({"loss": 3.1, "accuracy": 0.0}, 0.19, []),  # too early to tell
        ({"loss": 3.1, "tokens": 9.0}, 0.5, []),  # too few to know how frequent each is
    ],
)
def test_a_guess_no_better_than_a_blind_one_is_told(changes, progress, names):
    metrics = {"loss": 2.0, "accuracy": 0.2, "tokens": 1e6}
    metrics |= {"unigram_loss": 3.0, "unigram_accuracy": 0.1} | changes
    found = start("tokens")[0].warnings(metrics, progress)
    assert [*found] == names


def test_the_picture_shows_grey_where_patches_are_hidden():
    task, params, ctx, batch, _ = start("pixels")
    picture = np.asarray(jax.jit(task.pictures)(params, batch, ctx)["prediction"])
    masked, seen, guess = np.split(picture, 3, axis=2)
    hidden = pixels_of(batch["mask"])
    np.testing.assert_array_equal(masked, np.where(hidden, 128, batch["image"]))
    np.testing.assert_array_equal(seen, batch["token_image"])
    unhidden = np.broadcast_to(~hidden, guess.shape)
    np.testing.assert_array_equal(guess[unhidden], batch["token_image"][unhidden])


@pytest.mark.parametrize("count", [0, 17, None])
def test_slots_that_the_grid_cannot_fill_are_refused(count):
    config = runs.config("pretrain", data__mask={"max_patches": count})
    with pytest.raises(ValueError, match=f"max_patches={count} must be in 1..16"):
        tasks.build(config)


@pytest.mark.parametrize("mask", ["blockwise", "none"])
def test_all_patches_may_be_predicted(mask):
    changes = {"task__predict": "all", "data__mask": {"name": mask}}
    config = runs.config("pretrain", "pixels", **changes)
    task, params, ctx, batch = runs.start(config, 6)
    if mask == "none":
        batch["mask"] = np.zeros_like(batch["mask"])
    image = PIXEL_SPACES["half"].to_float(batch["image"])
    flat = batch["mask"].reshape(6, -1)
    features = task.encoder.apply({"params": params["encoder"]}, image, flat)
    predicted = task.network.output.apply({"params": params}, features)
    wanted = task.target(ctx.frozen.get("target"), batch["token_image"])
    metrics = runs.metrics(task, jax.jit(task.eval_step)(params, batch, ctx))
    mean = task.target.loss(predicted, wanted).mean()
    np.testing.assert_allclose(metrics["loss"], mean, rtol=1e-5)
    assert metrics["masked_patches"] == flat.sum() / 6


def test_predicting_masked_patches_needs_a_mask():
    config = runs.config("pretrain", data__mask={"name": "none"})
    with pytest.raises(ValueError, match="hides nothing.*set config.task.predict='all"):
        tasks.build(config)
    with pytest.raises(ValueError, match="predict='some' is none of"):
        tasks.build(runs.config("pretrain", task__predict="some"))


def test_a_wrong_target_says_what_there_is():
    config = runs.config("pretrain", task__target={"name": "hogg"})
    with pytest.raises(ValueError, match="no 'hogg' in beit_jax.targets; it has"):
        tasks.build(config)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model__image_size": 36}, "image_size=36 must be a multiple of patch_size=8"),
        ({"model__patch_size": 0}, "patch_size=0 must be pixels"),
    ],
)
def test_an_image_that_patches_do_not_fill_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        tasks.build(runs.config("pretrain", "pixels", **change))


@pytest.mark.slow
def test_pretraining_learns_a_few_images_by_heart(tmp_path):
    """To a tenth of the loss of guessing, ln V."""
    model = tiny.ENCODER | {"dim": 96, "depth": 3, "drop_path": 0.0}
    config = tiny.config("pretrain", model=model, optim__accumulate=1)
    config.data.frame.update({"min_scale": 1.0, "min_ratio": 1.0, "max_ratio": 1.0})
    config.data.augment.flip = False
    config.data.source.num_examples = config.data.batch_size = 64
    config.steps, config.optim.lr, config.optim.warmup_steps = 900, 3e-3, 20
    config.optim.weight_decay = 0.0
    train(config, tmp_path, quiet=True)
    assert tiny.lines(tmp_path)[-1]["train/loss"] < 0.1 * np.log(tiny.VQVAE["vocab"])


MAE = {
    "task__head": {"name": "decoder", "dim": 16, "depth": 1, "heads": 2},
    "data__mask": {"name": "random", "max_patches": 12},
    "model__rel_pos_bias": "none",
    "model__abs_pos_embed": "sincos",
    "model__init_as": "mae",
}


@functools.cache
def decoding():
    """(task, parameters, context, a batch), of a network with MAE's decoder."""
    return runs.start(runs.config("pretrain", "pixels", **MAE), 6)


def test_a_decoders_encoder_sees_what_is_not_hidden():
    task, params, ctx, batch = decoding()
    loss = jax.jit(lambda batch: task.train_loss(params, batch, ctx)[0])
    hidden = pixels_of(batch["mask"])
    other = batch | {"image": np.where(hidden, 255 - batch["image"], batch["image"])}
    assert loss(other) == loss(batch)
    seen = batch | {"image": np.where(hidden, batch["image"], 255 - batch["image"])}
    assert loss(seen) != loss(batch)
    assert "mask_token" not in params["encoder"] and "mask_token" in params


def test_an_encoder_that_sees_a_quarter_computes_less():
    def flops(task, params, ctx, batch):
        forward = jax.jit(lambda params: task.train_loss(params, batch, ctx)[0])
        return forward.lower(params).cost_analysis()["flops"]

    few = flops(*decoding())
    plain = {key: MAE[key] for key in MAE if key not in ("task__head",)}
    every = flops(*runs.start(runs.config("pretrain", "pixels", **plain), 6))
    assert few < 0.7 * every


def test_a_mask_that_leaves_nothing_to_encode_is_refused():
    config = runs.config("pretrain", "pixels", **MAE)
    config.data.mask.max_patches = 16
    with pytest.raises(ValueError, match="leaves none of the 16 patches to encode"):
        tasks.build(config)


def test_layers_of_a_decoder_are_above_those_of_the_encoder():
    task, params, *_ = decoding()
    layers = task.layers(params)
    assert layers["decoder_blocks"]["attn"]["qkv"].ravel().tolist() == [3]
    assert layers["mask_token"] == layers["decoder_pred"]["kernel"] == 3
