"""Losses by their formulas, and what of an example they count."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.utils.class_weight import compute_class_weight

from beit_jax import tasks
from beit_jax.tasks.losses import LOSSES
from tests.tasks import runs
from tests.tasks.test_classify import CLASSES, LOGITS, mixed, start

P = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))


def wanted(batch):
    return np.eye(CLASSES)[batch["label"]]


def test_binary_cross_entropy_looks_at_each_class_by_itself():
    task, ctx, params, batch = start(
        task__loss={"name": "binary"}, task__label_smoothing=0.0
    )
    loss, _ = jax.jit(task.train_loss)(params, batch, ctx)
    each = -np.log(np.where(wanted(batch), P, 1 - P))
    np.testing.assert_allclose(loss, each.mean(), rtol=1e-6)


def test_above_the_threshold_both_parts_of_a_mixed_image_are_wanted():
    task, ctx, params, batch = start(
        task__loss={"name": "binary", "threshold": 0.2}, task__label_smoothing=0.1
    )
    loss, _ = jax.jit(task.train_loss)(params, mixed(batch), ctx)
    either = wanted(batch) + wanted(batch)[::-1] > 0
    np.testing.assert_allclose(loss, -np.log(np.where(either, P, 1 - P)).mean(), 1e-6)


def test_focal_loss_is_its_formula():
    task, ctx, params, batch = start(
        task__loss={"name": "focal"}, task__label_smoothing=0.0
    )
    loss, _ = jax.jit(task.train_loss)(params, batch, ctx)
    p = np.where(wanted(batch), P, 1 - P)
    alpha = np.where(wanted(batch), 0.25, 0.75)
    each = -alpha * (1 - p) ** 2 * np.log(p)
    np.testing.assert_allclose(loss, each.sum(1).mean(), rtol=1e-6)


def test_a_sure_class_gives_no_slope_that_is_not_finite():
    logits = jnp.array([[200.0, -200.0]])
    for name in ("binary", "focal"):
        for target in ([[1.0, 0.0]], [[0.0, 1.0]]):
            loss = LOSSES[name]()
            slope = jax.grad(lambda x, loss=loss, t=target: loss(x, jnp.array(t)).sum())
            assert np.isfinite(slope(logits)).all()


def test_an_example_counts_as_its_class_does():
    weights = tuple(np.linspace(0.5, 4, CLASSES).tolist())
    task, ctx, params, batch = start(
        task__class_weights=weights, task__label_smoothing=0.0
    )
    loss, aux = jax.jit(task.train_loss)(params, batch, ctx)
    logs = LOGITS - np.log(np.exp(LOGITS).sum())
    own = np.array(weights)[batch["label"]]
    wanted = -(own * logs[batch["label"]]).sum() / own.sum()  # torch's, too
    np.testing.assert_allclose(loss, wanted, rtol=1e-6)
    assert aux.metrics["top1"][1] == CLASSES
    _, aux = jax.jit(task.train_loss)(params, mixed(batch), ctx)
    both = 0.3 * own + 0.7 * own[::-1]
    np.testing.assert_allclose(aux.metrics["loss"][1], both.sum(), rtol=1e-6)


def test_accumulated_gradients_of_weighed_classes_equal_those_of_one_batch():
    changes = {"optim__accumulate": 4, "optim__clip_norm": 0.0, "optim__b1": 0.0}
    changes |= {"task__class_weights": (0.1, 0.2, 3.0, 4.0)}
    config = runs.config("classify", **changes)
    task, params, ctx, batch = runs.start(config, 8)
    compute = jax.jit(jax.grad(task.train_loss, has_aux=True))
    wanted, _ = compute(params, batch, ctx)
    now, update = runs.updating(task, config, params, ctx)
    now, _ = update(now, ctx.frozen, batch)
    runs.assert_gradients_equal(optax.tree.get(now.opt_state, "mu"), wanted)


def test_balanced_weights_are_scikit_learns():
    task = tasks.build(runs.config("classify", task__class_weights="balanced"))
    label = np.repeat(np.arange(4), [1, 2, 30, 7])
    task.weigh(lambda: np.bincount(label), len(label))
    theirs = compute_class_weight("balanced", classes=np.arange(4), y=label)
    np.testing.assert_allclose(task._weights.factors, theirs, rtol=1e-7)


def test_balanced_labels_weigh_images_with_one_by_those_without():
    task = tasks.build(runs.config("multilabel", task__class_weights="balanced"))
    task.weigh(lambda: np.array([1, 5, 0, 10]), 10)
    np.testing.assert_allclose(task._weights.factors, [9, 1, 1, 1])


@pytest.mark.parametrize(
    "task, change, message",
    [
        ("classify", {"task__loss": {"name": "mse"}}, "no 'mse' in config.task.loss"),
        ("multilabel", {"task__loss": {"name": "cross_entropy"}}, "it has binary, foc"),
        ("regress", {"task__loss": {"name": "focal"}}, "it has l1, mse, smooth_l1"),
        ("classify", {"task__loss": {"name": "focal", "gamma": 0.5}}, "at least 1"),
        ("classify", {"task__class_weights": "even"}, "must be 'balanced' or one"),
        ("classify", {"task__class_weights": (1.0, 2.0)}, "each of the 4 classes"),
        ("classify", {"task__class_weights": (1.0, 2.0, 0.0, 1.0)}, "above 0"),
        ("regress", {"task__targets": ()}, "must be names of numbers"),
        ("regress", {"task__mean": (1.0,)}, "a number for each of 2 targets"),
        ("regress", {"task__std": (1.0, 0.0)}, "must be above 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(task, change, message):
    with pytest.raises(ValueError, match=message):
        tasks.build(runs.config(task, **change))
