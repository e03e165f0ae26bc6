"""Linear probes: closed forms, batch statistics, and where the encoder comes from."""

import jax
import numpy as np
import optax
import pytest

from beit_jax import config as config_lib
from beit_jax import tasks
from beit_jax.checkpoints import steps
from beit_jax.checkpoints.names import flatten
from beit_jax.config import Plan
from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.optim import optimizers
from beit_jax.tasks import encoders, probe
from tests.agreement import assert_agrees
from tests.models import official
from tests.tasks import runs


@pytest.fixture(scope="module", params=probe.NORMS)
def learnt(request):
    """A batch of which some was skipped, the parameters, and what came of them.

    (batch, parameters, model state, features (L, B, F), gradients, aux, evaluation)
    """
    config = runs.config("probe", task__norm=request.param)
    task, params, ctx, batch = runs.start(config, 8)
    batch["weight"][3:5] = 0

    @jax.jit
    def learn(params, batch, ctx):
        image = PIXEL_SPACES["half"].to_float(batch["image"])
        features = encoders.block_features(
            task.encoder, ctx.frozen["encoder"], image, "concat"
        )
        gradients = jax.grad(task.train_loss, has_aux=True)(params, batch, ctx)
        return features, *gradients, task.eval_step(params, batch, ctx)

    made = jax.device_get(learn(params, batch, ctx))
    return batch, params, ctx.model_state, *made


def softmax_regression(features, labels, kernel, bias):
    """(mean loss, hits, gradient of kernel, of bias) of one linear classifier."""
    logits = features @ kernel + bias
    odds = np.exp(logits - logits.max(1, keepdims=True))
    chance = odds / odds.sum(1, keepdims=True)
    rows = np.arange(len(labels))
    loss = -np.log(chance[rows, labels]).mean()
    hits = np.sum(chance.argmax(1) == labels)
    chance[rows, labels] -= 1
    return loss, hits, features.T @ chance / len(rows), chance.mean(0)


def test_every_block_learns_as_a_softmax_regression_alone(learnt):
    batch, params, before, features, grads, aux, _ = learnt
    counts = batch["weight"] > 0
    features, total = features.astype(np.float64)[:, counts], 0
    if before:
        spread = np.sqrt(features.var(1, keepdims=True) + 1e-6)
        features = (features - features.mean(1, keepdims=True)) / spread
    for block, x in enumerate(features):
        linear = jax.tree.map(lambda leaf: leaf[block], params["blocks"])  # noqa: B023
        loss, _, *wanted = softmax_regression(x, batch["label"][counts], **linear)
        for name, want in zip(("kernel", "bias"), wanted, strict=True):
            got = grads["blocks"][name][block]
            assert_agrees(
                "softmax regression", f"probe: gradient of {name}", got, want, 1e-5
            )
        total += loss
    got, count = aux.metrics["loss"]
    assert_agrees("softmax regression", "probe: loss", got / count, total, 1e-5)


def test_an_evaluation_normalises_by_the_running_statistics(learnt):
    batch, params, before, features, _, _, sums = learnt
    counts = batch["weight"] > 0
    features, losses = features.astype(np.float64)[:, counts], []
    if before:
        mean, var = (before["batch_stats"][k][:, None] for k in ("mean", "var"))
        features = (features - mean) / np.sqrt(var + 1e-6)
    for block, x in enumerate(features):
        linear = jax.tree.map(lambda leaf: leaf[block], params["blocks"])  # noqa: B023
        loss, hits, *_ = softmax_regression(x, batch["label"][counts], **linear)
        losses.append(loss)
        assert sums["top1_by_block"][0][block] == hits
    np.testing.assert_allclose(sums["loss"][0] / counts.sum(), sum(losses), rtol=1e-5)


def test_statistics_are_those_of_pytorchs_batch_normalisation():
    rng = np.random.default_rng(0)
    features = 3 + 2 * rng.standard_normal((2, 7, 5)).astype(np.float32)
    weight = np.array([1, 1, 0, 1, 1, 0, 1], np.float32)
    running = {"mean": rng.random((2, 5)), "var": rng.random((2, 5))}
    x = features[:, weight > 0].astype(np.float64)
    now = probe.statistics(features, weight)
    after = probe.follow(running, now, weight.sum())
    peer = "torch.nn.BatchNorm1d's formula"
    wanted = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
    got = probe.normalise(features, now)[:, weight > 0]
    assert_agrees(peer, "normalised features", got, wanted, 1e-5)
    mean = 0.9 * running["mean"] + 0.1 * x.mean(1)
    var = 0.9 * running["var"] + 0.1 * x.var(1, ddof=1)
    assert_agrees(peer, "running mean", after["mean"], mean, 1e-6)
    assert_agrees(peer, "running variance", after["var"], var, 1e-6)


def test_a_single_example_does_not_move_the_running_statistics():
    running = {"mean": np.zeros((1, 2)), "var": np.ones((1, 2))}
    now = probe.statistics(np.full((1, 3, 2), 5.0), np.array([0.0, 1.0, 0.0]))
    jax.tree.map(
        np.testing.assert_array_equal, probe.follow(running, now, 1.0), running
    )


def test_the_best_block_is_told_beside_all():
    task = tasks.build(runs.config("probe"))
    part = {"loss": (6.0, 4.0), "top1_by_block": (np.array([1.0, 3.0]), 4.0)}
    assert runs.metrics(task, part, part) == {
        "loss": 0.75,  # of a block, as chance is
        "sum_of_losses": 1.5,
        "top1": 0.75,
        "best_block": 1.0,
        "top1_block_00": 0.25,
        "top1_block_01": 0.75,
    }


@pytest.fixture(scope="module", params=["pretrain", "classify"])
def encoded(request, tmp_path_factory):
    """(the directory of a run with random weights, its parameters)"""
    workdir = tmp_path_factory.mktemp(request.param)
    config = runs.config(request.param, "pixels" if request.param == "pretrain" else "")
    _, params, _, _ = runs.start(config)
    steps.save_params(workdir, params, {}, config, {})
    return workdir, params


def probing(checkpoint, **model):
    """The probe of a checkpoint whose recipe says no more of the model than `model`."""
    config = runs.config("probe", task__checkpoint=str(checkpoint))
    config.model = {"image_size": 32, "pixels": "half"} | model
    return config


def test_a_probe_trains_classifiers_on_the_encoder_of_a_checkpoint(encoded):
    workdir, params = encoded
    task, own, ctx, batch = runs.start(probing(workdir))
    assert flatten(own).keys() == {"blocks/kernel", "blocks/bias"}
    assert task.frozen["encoder"].path == steps.find_step(workdir)
    frozen = task.frozen["encoder"].load()
    jax.tree.map(np.testing.assert_array_equal, frozen, params["encoder"])
    loss, _ = jax.eval_shape(task.train_loss, own, batch, ctx)
    assert loss.shape == ()


def test_a_probe_may_see_larger_images(encoded):
    task = tasks.build(probing(encoded[0], image_size=48))
    tables = [
        x
        for name, x in flatten(task.frozen["encoder"].load()).items()
        if "table" in name
    ]
    assert tables and {table.shape[-2] for table in tables} == {11 * 11 + 3}


def test_a_model_that_is_not_the_checkpoints_is_refused(encoded):
    tasks.build(probing(encoded[0], dim=32, depth=2))
    for name, theirs, ours in (("dim", 32, 64), ("pixels", "half", "imagenet")):
        message = f"where model.{name}={theirs!r} and not {ours!r}; say the same in"
        with pytest.raises(ValueError, match=message):
            tasks.build(probing(encoded[0], **{name: ours}))


def test_a_checkpoint_without_an_encoder_is_refused(tmp_path):
    config = runs.config("tokenizer")
    steps.save_params(tmp_path, {"x": np.ones(1)}, {}, config, {})
    with pytest.raises(
        ValueError, match="is of task 'tokenizer'; a probe needs one of"
    ):
        tasks.build(probing(tmp_path))


def test_the_untrained_encoder_is_always_the_same():
    first, second = (
        tasks.build(runs.config("probe", seed=seed)).frozen["encoder"].load()
        for seed in (0, 1)
    )
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert np.std(first["blocks"]["mlp"]["fc1"]["kernel"]) > 0.005


@pytest.mark.parametrize("settings", [{"features": "max"}, {"norm": "layer"}])
def test_probes_that_there_are_not_are_refused(settings):
    changes = {f"task__{name}": value for name, value in settings.items()}
    with pytest.raises(ValueError, match="features=.* norm=.* classes=.* at least 2"):
        tasks.build(runs.config("probe", **changes))


def test_a_probe_with_lars_moves_as_maes_does():
    """Batch norm without parameters, one linear layer, four steps of LARS."""
    arrays, meta = official.load("probe_lars")
    classifier = {"kernel": arrays["param/1.weight"].T, "bias": arrays["param/1.bias"]}
    params = {"blocks": {name: x[None] for name, x in classifier.items()}}
    settings = {"name": "lars", "weight_decay": meta["weight_decay"], "lr": 1.0}
    settings |= {"schedule": {"name": "constant"}, "clip_norm": 0.0}
    settings = config_lib.new(optim=settings).optim
    layers = jax.tree.map(lambda x: np.ones((1,) * x.ndim, int), params)
    plan = Plan(total=4, warmup=0, log=0, save=0)
    tx = optimizers.make(settings, plan, params, layers).tx
    momentum = tx.init(params)
    running = {k: arrays[f"param/0.running_{k}"][None] for k in ("mean", "var")}
    peer = "oracle probe_lars"

    def loss(params, features, label):
        logits = features @ params["blocks"]["kernel"][0] + params["blocks"]["bias"][0]
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        return nats.mean(), logits

    for i in range(4):
        features, label = (arrays[f"in/step{i}_{k}"] for k in ("features", "labels"))
        count = np.ones(len(label), np.float32)
        now = probe.statistics(features[None], count)
        running = probe.follow(running, now, count.sum())
        seen = probe.normalise(features[None], now)[0]
        (nats, logits), grads = jax.value_and_grad(loss, has_aux=True)(
            params, seen, label
        )
        updates, momentum = tx.update(grads, momentum, params)
        rate = arrays[f"out/step{i}_lr"]
        params = jax.tree.map(lambda p, u: p + rate * u, params, updates)  # noqa: B023
        got = {
            "logits": logits,
            "loss": nats,
            "weight": params["blocks"]["kernel"][0].T,
        }
        got |= {f"running_{k}": x[0] for k, x in running.items()}
        for name, value in got.items():
            assert_agrees(peer, name, value, arrays[f"out/step{i}_{name}"], atol=1e-6)
