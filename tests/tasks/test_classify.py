"""Classification: its loss, its counts, and the weights that it starts from."""

import operator

import jax
import numpy as np
import optax
import pytest

from beit_jax import tasks
from beit_jax.models.features import Features, Stage
from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.tasks import classify
from tests.tasks import runs

CLASSES = 8
LOGITS = np.array([3.0, 2.5, 1.0, 0.5, 0.0, -1.0, -1.5, -2.0], np.float32)


def start(**changes):
    """(task, context, parameters, batch); its logits are LOGITS for every image."""
    config = runs.config("classify", task__classes=CLASSES, **changes)
    task, params, ctx, batch = runs.start(config, CLASSES)
    head = {"kernel": 0 * params["head"]["kernel"], "bias": LOGITS}
    return task, ctx, params | {"head": head}, batch


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_smoothing_has_its_closed_form(smoothing):
    task, ctx, params, batch = start(task__label_smoothing=smoothing)
    logs = LOGITS - np.log(np.exp(LOGITS).sum())
    wanted = (1 - smoothing) * logs[batch["label"]] + smoothing * logs.mean()
    loss, _ = jax.jit(task.train_loss)(params, batch, ctx)
    np.testing.assert_allclose(loss, -wanted.mean(), rtol=1e-6)


def test_an_evaluation_smooths_no_labels():
    task, ctx, params, batch = start(task__label_smoothing=0.5)
    logs = LOGITS - np.log(np.exp(LOGITS).sum())
    sums = jax.jit(task.eval_step)(params, batch, ctx)
    metrics = runs.metrics(task, sums)
    np.testing.assert_allclose(metrics["loss"], -logs[batch["label"]].mean(), rtol=1e-6)


def test_the_five_best_classes_count_as_found():
    task, ctx, params, batch = start()
    batch["label"] = np.arange(CLASSES, dtype=np.int32)  # every rank once
    metrics = runs.metrics(task, jax.jit(task.eval_step)(params, batch, ctx))
    assert metrics["top1"] == 1 / CLASSES
    assert metrics["top5"] == 5 / CLASSES
    confidence = np.exp(LOGITS[0]) / np.exp(LOGITS).sum()
    np.testing.assert_allclose(metrics["ece"], confidence - 1 / CLASSES, rtol=1e-6)


def test_accumulated_gradients_equal_those_of_one_batch():
    changes = {"optim__accumulate": 4, "optim__clip_norm": 0.0, "optim__b1": 0.0}
    config = runs.config("classify", **changes)
    task, params, ctx, batch = runs.start(config, 8)
    compute = jax.jit(jax.value_and_grad(task.train_loss, has_aux=True))
    (loss, _), wanted = compute(params, batch, ctx)
    now, update = runs.updating(task, config, params, ctx)
    now, sums = update(now, ctx.frozen, batch)
    runs.assert_gradients_equal(optax.tree.get(now.opt_state, "mu"), wanted)
    np.testing.assert_allclose(sums["loss"][0] / sums["loss"][1], loss, rtol=1e-6)


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_only_mean_pooling_leaves_out_the_encoders_norm(pool):
    _, _, params, _ = start(task__pool=pool)
    assert ("fc_norm" in params) == (pool == "mean")
    assert ("norm" in params["encoder"]) == (pool == "cls")


def test_the_heads_first_weights_are_scaled():
    def kernel(scale):
        head = tasks.build(
            runs.config("classify", task__head_init_scale=scale, task__pool="cls")
        ).network.output
        seen = Features(Stage(np.zeros((1, 2, 32)), np.zeros((1, 32)), (1, 2)))
        params = jax.jit(head.init)(jax.random.key(0), seen)["params"]
        return params["head"]["kernel"].unbox()

    assert np.abs(kernel(0.001)).max() > 0
    np.testing.assert_allclose(kernel(0.001), 0.001 * kernel(1.0), rtol=1e-6)
    assert np.std(kernel(1.0)) == pytest.approx(0.02, rel=0.2)


def test_adapted_weights_encode_as_the_shared_ones_do():
    shared, ctx, params, batch = start(model__rel_pos_bias="shared")
    blocks = tasks.build(runs.config("classify", model__rel_pos_bias="per_block"))
    image = PIXEL_SPACES["half"].to_float(batch["image"])
    adapted = blocks.adapt(params, runs.config("classify").model)

    def encode(task, params):
        apply = jax.jit(task.encoder.apply)
        return apply({"params": params["encoder"]}, image).tokens

    want = encode(shared, params)
    np.testing.assert_allclose(encode(blocks, adapted), want, rtol=0, atol=1e-5)
    assert "rel_pos_bias" in params["encoder"], "the given tree must stay as it was"
    table = params["encoder"]["rel_pos_bias"]["table"]
    without = params["encoder"] | {"rel_pos_bias": {"table": 0 * table}}
    changed = encode(shared, params | {"encoder": without})
    assert np.abs(changed - want).max() > 1e-3, "the table must matter"


def mixed(batch, lam=0.3):
    """Mixup of every row with that share of itself."""
    return batch | {"mix": np.tile(np.float32([lam, 0, 0, 0, 0]), (CLASSES, 1))}


def test_mixed_labels_share_the_loss():
    task, ctx, params, batch = start(task__label_smoothing=0.0)
    logs = LOGITS - np.log(np.exp(LOGITS).sum())
    own, other = logs[batch["label"]], logs[batch["label"][::-1]]
    loss, _ = jax.jit(task.train_loss)(params, mixed(batch), ctx)
    np.testing.assert_allclose(loss, -(0.3 * own + 0.7 * other).mean(), rtol=1e-6)


def test_a_row_whose_partner_was_skipped_does_not_count():
    task, ctx, params, batch = start()
    batch["weight"][1] = 0
    _, aux = jax.jit(task.train_loss)(params, mixed(batch), ctx)
    assert aux.metrics["loss"][1] == CLASSES - 2


def test_erasing_changes_what_is_seen():
    task, params, ctx, batch = runs.start(runs.config("classify"))
    boxes = {"erase": np.tile([0, 0, 16, 32], (4, 1)), "erase_seed": np.arange(4)}
    loss = jax.jit(lambda batch: task.train_loss(params, batch, ctx)[0])
    nothing = boxes | {"erase": 0 * boxes["erase"]}
    np.testing.assert_allclose(loss(batch | nothing), loss(batch), rtol=1e-6)
    assert abs(loss(batch | boxes) - loss(batch)) > 1e-4


@pytest.mark.parametrize(
    "setting, arrays",
    [
        ({}, set()),
        ({"jitter": 0.4, "jitter_on": "image"}, set()),
        ({"jitter": 0.4, "jitter_on": "device"}, {"jitter"}),
        ({"erase": 0.25}, {"erase", "erase_seed"}),
        ({"mixup": 0.8}, {"mix"}),
        ({"cutmix": 1.0}, {"mix"}),
    ],
)
def test_the_spec_asks_for_what_the_step_augments_by(setting, arrays):
    changes = {f"data__augment__{name}": value for name, value in setting.items()}
    task = tasks.build(runs.config("classify", **changes))
    assert task.train_spec.keys() == {"image", "label", *arrays}
    assert task.eval_spec.keys() == {"image", "label"}


def test_a_task_may_evaluate_on_other_arrays_than_it_trains_on():
    task = tasks.build(runs.config("classify"))
    task.eval_spec = {"image": task.train_spec["image"]}
    assert task.train_spec.keys() == {"image", "label"}
    assert task.eval_spec.keys() == {"image"}


def test_randaugment_fills_with_the_mean_of_the_pixel_space():
    policy = {"data__augment__randaugment": "rand-m9-mstd0.5-inc1"}
    tasks.build(runs.config("classify", **policy))
    with pytest.raises(ValueError, match=r"is not the mean.*\(124, 116, 104\)"):
        tasks.build(runs.config("classify", model__pixels="imagenet", **policy))
    right = policy | {"data__augment__fill": (124, 116, 104)}
    tasks.build(runs.config("classify", model__pixels="imagenet", **right))


@pytest.mark.parametrize("task", ["pretrain", "tokenizer"])
def test_tasks_without_labels_refuse_what_mixes_labels(task):
    config = runs.config(task, data__augment__mixup=0.8)
    with pytest.raises(ValueError, match=f"mixup=0.8 is for class.*{task!r} cannot"):
        tasks.build(config)


def test_weights_that_need_no_change_stay():
    task, _, params, _ = start(model__rel_pos_bias="per_block")
    adapted = task.adapt(params, runs.config("classify").model)
    assert jax.tree.structure(adapted) == jax.tree.structure(params)
    assert all(map(operator.is_, jax.tree.leaves(adapted), jax.tree.leaves(params)))
    assert task.adapt({"decoder": {}}, {}) == {"decoder": {}}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"task__pool": "max"}, "pool='max' must be one of"),
        ({"task__classes": 1}, "classes=1 must be at least 2"),
        ({"task__label_smothing": 0.1}, "did you mean 'label_smoothing'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        tasks.build(runs.config("classify", **change))


def test_the_head_normalises_with_the_models_epsilon():
    task, params, ctx, batch = start()
    other, *_ = start(model__norm_eps=1.0)
    assert other.network.output.norm_eps == other.encoder.norm_eps == 1.0
    assert task.network.output.norm_eps == 1e-6


def test_heat_lies_on_the_patch_that_is_looked_at():
    image = np.full((1, 8, 12, 3), 100, np.uint8)
    heat = np.zeros((1, 2, 3), np.float32)
    heat[0, 1, 2] = 0.25  # the largest: white, whatever it is
    seen = np.asarray(classify.under_heat(image, heat))
    assert (seen[0, -1, -1] == 208).all() and (seen[0, 0, 0] == 30).all()
