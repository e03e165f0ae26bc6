import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax import tasks
from beit_jax.data.frame import IGNORED_LABEL
from beit_jax.models.sampling import bilinear
from beit_jax.tasks import pixel_losses
from tests.tasks import runs


@pytest.fixture(scope="module")
def started():
    return runs.start(runs.config("segment"))


def test_a_label_that_is_ignored_is_the_one_of_the_data():
    assert pixel_losses.IGNORED == IGNORED_LABEL


def test_what_lies_beyond_an_image_changes_nothing(started):
    task, params, ctx, batch = started
    rows = np.arange(32)
    inside = (rows[:, None] < batch["frame"][:, None, 2:3]) & (
        rows < batch["frame"][:, None, 3:4].swapaxes(1, 2).reshape(4, 1, 1)
    )
    labels = np.where(inside, batch["label_map"], IGNORED_LABEL)
    noise = np.where(inside[..., None], batch["image"], 77)
    step = jax.jit(task.eval_step)
    one = step(params, batch | {"label_map": labels}, ctx)
    other = step(params, batch | {"label_map": labels, "image": noise}, ctx)
    np.testing.assert_array_equal(one["confusion"], other["confusion"])
    assert one["confusion"].sum() == np.sum(labels != IGNORED_LABEL)


def test_maps_are_those_of_the_network_on_an_image_of_its_own_size(started):
    task, params, ctx, batch = started
    batch["frame"][:, :4] = 32
    found = jax.jit(functools.partial(task.predict, "segments"))(params, batch, ctx)
    variables = {"params": params, **ctx.model_state}
    image = task._space.to_float(batch["image"])
    logits = task.network.apply(variables, image).logits
    wanted = jnp.argmax(bilinear(logits, (32, 32)), axis=-1)
    agree = np.asarray(found["segments"]) == np.asarray(wanted)
    assert agree.mean() > 0.999


def test_the_loss_is_of_the_head_and_of_the_auxiliary_one(started):
    task, params, ctx, batch = started
    loss, aux = jax.jit(task.train_loss)(params, batch, ctx)
    parts = {k: s / n for k, (s, n) in aux.metrics.items()}
    wanted = parts["decode_loss"] + 0.4 * parts["auxiliary_loss_1"]
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"task__taps": (0, 0, 1, 2)}, "no block 2 to tap"),
        ({"task__tap_convention": "mmseg"}, "tap_convention='mmseg'"),
        ({"task__losses": {"iou": {}}}, "no 'iou'"),
        ({"data__augment__mixup": 0.8}, "mixup=0.8"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes, told):
    with pytest.raises(ValueError, match=told):
        task = tasks.build(runs.config("segment", **changes))
        jax.eval_shape(task.init, jax.random.key(0), runs.batch(task))


@pytest.mark.parametrize(
    ("depth", "taps"),
    [(2, (0, 0, 0, 1)), (12, (3, 5, 7, 11)), (24, (7, 11, 15, 23))],
)
def test_the_blocks_that_a_head_sees_are_the_published_ones(depth, taps):
    config = runs.config("segment", task__taps=(), model__depth=depth)
    assert tasks.build(config).encoder.taps == taps


@pytest.mark.parametrize(("convention", "taps"), [("official", 2), ("hf", 0)])
def test_transformers_reads_two_blocks_earlier(convention, taps):
    config = runs.config(
        "segment", task__taps=(2,) * 4, task__tap_convention=convention, model__depth=3
    )
    assert tasks.build(config).encoder.taps == (taps,) * 4
