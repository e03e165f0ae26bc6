"""Objectives without a picture, several predictions, losses that see the average."""

import signal
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax import heads, tasks
from beit_jax.evaluate import evaluate
from beit_jax.heads.tokens import TokenHead
from beit_jax.run.stop import Preempted
from beit_jax.tasks.classify import Classify
from beit_jax.tasks.objectives import OBJECTIVES, VectorQuantization
from beit_jax.train import train
from tests import tiny
from tests.tasks import runs


class Codes(VectorQuantization):
    """The encoder's output is to be near its codes; it decodes nothing."""

    paints = False

    def __init__(self, model, far: float = 1.0):
        super().__init__(model)
        self._far = far

    def __call__(self, *args):
        outcome = super().__call__(*args)
        terms = {"loss": self._far * outcome.terms["quantization"]}
        return outcome._replace(reconstruction=None, terms=terms)


def test_an_objective_may_give_no_picture(tmp_path, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "codes", Codes)
    config = tiny.config("tokenizer", task__objective={"name": "codes", "far": 2.0})
    metrics = train(config, tmp_path, quiet=True)
    assert "eval/perplexity" in metrics and "eval/psnr" not in metrics
    assert evaluate(tmp_path) == metrics
    assert not list(tmp_path.glob("pictures/reconstruction*"))
    task = tasks.build(config)
    assert task.outputs == ("tokens",) and "psnr" not in task.headline


class Pair(NamedTuple):
    last: jax.Array
    early: jax.Array


class Two(nn.Module):
    """The usual prediction, and another of its own."""

    outputs: int

    @nn.compact
    def __call__(self, features, *, train=False):
        return Pair(
            TokenHead(self.outputs, name="a")(features),
            TokenHead(self.outputs, name="b")(features),
        )


def test_losses_of_several_predictions_add_up(monkeypatch):
    monkeypatch.setitem(heads.HEADS, "two", Two)
    task, params, ctx, batch = runs.start(
        runs.config("pretrain", task__head={"name": "two"})
    )
    (loss, aux), grads = jax.jit(jax.value_and_grad(task.train_loss, has_aux=True))(
        params, batch, ctx
    )
    one = tasks.build(runs.config("pretrain"))
    parts, wanted = [], jax.tree.map(jnp.zeros_like, params)
    for name in ("a", "b"):
        alone = {"encoder": params["encoder"], "lm_head": params[name]["lm_head"]}
        each, its = jax.jit(jax.value_and_grad(one.train_loss, has_aux=True))(
            alone, batch, ctx
        )
        parts.append(each)
        its = {"encoder": its["encoder"], name: {"lm_head": its["lm_head"]}}
        for key, tree in its.items():
            wanted[key] = jax.tree.map(jnp.add, wanted[key], tree)
    np.testing.assert_allclose(loss, parts[0][0] + parts[1][0], rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7),
        grads,
        wanted,
    )
    for name, (each, _) in zip(Pair._fields, parts, strict=True):
        total, count = aux.metrics[f"loss_{name}"]
        np.testing.assert_allclose(total / count, each, rtol=1e-6)
    first = parts[0][1].metrics
    assert aux.metrics["accuracy"] == first["accuracy"]
    blind = [runs.metrics(one, m)["unigram_loss"] for m in (aux.metrics, first)]
    np.testing.assert_allclose(blind[0], 2 * blind[1], rtol=1e-6)


class Mindful(Classify):
    """Stays near its average, and tells how far from it it is."""

    def _distance(self, params, ctx):
        gaps = jax.tree.map(lambda p, e: jnp.sum((p - e) ** 2), params, ctx.ema)
        return sum(jax.tree.leaves(gaps))

    def train_loss(self, params, batch, ctx):
        loss, aux = super().train_loss(params, batch, ctx)
        distance = self._distance(params, ctx)
        aux.metrics["distance"] = (jax.lax.stop_gradient(distance), 1.0)
        count = aux.metrics["loss"][1]
        aux.metrics["loss"] = (aux.metrics["loss"][0] + distance * count, count)
        return loss + distance, aux

    def eval_step(self, params, batch, ctx):
        rows = super().eval_step(params, batch, ctx)
        return rows | {"nll": rows["nll"] + self._distance(params, ctx)}


def test_a_loss_may_see_the_average(tmp_path, monkeypatch):
    monkeypatch.setitem(tasks.TASKS, "mindful", Mindful)
    config = tiny.config("classify", log__every_steps=1)
    plain = train(config, tmp_path / "plain", quiet=True)
    config.task.name = "mindful"
    metrics = train(config, tmp_path / "mindful", quiet=True)
    told = [line["train/distance"] for line in tiny.lines(tmp_path / "mindful")]
    assert told[0] == 0 and told[-1] > 0
    assert metrics["eval/loss"] != plain["eval/loss"]
    assert evaluate(tmp_path / "mindful") == metrics  # of the average itself


def test_the_averages_decay_follows_its_cosine_across_a_restart(tmp_path, before_step):
    changes = {"optim__ema_decay": 0.6, "optim__ema_decay_end": 1.0}
    changes |= {"checkpoint__every_steps": 1, "checkpoint__keep": 9}
    config = tiny.config("classify", log__every_steps=1, optim__lr=0.1, **changes)
    before_step(4, lambda batch: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Preempted):
        train(config, tmp_path, quiet=True)
    before_step(None, None)
    train(config, tmp_path, quiet=True)
    name = "head/kernel"
    every = [tiny.arrays(tmp_path, step) for step in range(1, 7)]
    for step, (old, new) in enumerate(zip(every, every[1:], strict=False), 1):
        decay = 1.0 - 0.5 * (1.0 - 0.6) * (1 + np.cos(np.pi * step / 6))
        want = decay * old[f"ema/{name}"] + (1 - decay) * new[f"params/{name}"]
        np.testing.assert_allclose(new[f"ema/{name}"], want, rtol=1e-5, atol=1e-7)
        told = tiny.lines(tmp_path)[step]["train/ema_decay"]
        np.testing.assert_allclose(told, decay, rtol=1e-6)


def test_an_end_without_a_start_is_refused():
    config = runs.config("classify")
    config.optim.ema_decay_end = 0.9
    task, params, ctx, _ = runs.start(config)
    with pytest.raises(ValueError, match="ema_decay_end=0.9 is where .* set both"):
        runs.updating(task, config, params, ctx)


AGGREGATION = {"name": "aggregation", "early": 1, "layers": 1}


@pytest.mark.parametrize("shared", [True, False])
def test_only_the_second_prediction_needs_the_heads_blocks(shared):
    made = runs.config("pretrain", task__head=AGGREGATION | {"shared": shared})
    task, params, ctx, batch = runs.start(made)
    gradient = jax.jit(jax.grad(task.train_loss, has_aux=True))
    _, aux = gradient(params, batch, ctx)
    other = params | {
        "cls_pt_layers": jax.tree.map(jnp.zeros_like, params["cls_pt_layers"])
    }
    _, changed = gradient(other, batch, ctx)
    assert aux.metrics["loss_last"] == changed.metrics["loss_last"]
    assert aux.metrics["loss_early"] != changed.metrics["loss_early"]
    own = {"cls_pt_norm", "cls_pt_lm_head"}
    assert (params.keys() & own == own) is not shared
    layers = task.layers(params)["cls_pt_layers"]  # above the encoder's two
    assert layers["attn"]["qkv"].ravel().tolist() == [3]


def test_a_tap_beyond_the_encoder_is_refused():
    made = runs.config("pretrain", task__head={"name": "aggregation", "early": 3})
    with pytest.raises(ValueError, match="head.early=3, but the encoder has 2 blocks"):
        tasks.build(made)
