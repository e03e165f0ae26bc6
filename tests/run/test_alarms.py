"""Alarms: each is raised by its own trouble, once, and by nothing else."""

import json
import re
import signal
from types import SimpleNamespace

import numpy as np
import pytest

from beit_jax import config as c
from beit_jax.config import Plan
from beit_jax.optim import optimizers
from beit_jax.run.alarms import Alarms, of_settings
from beit_jax.run.stop import Preempted
from beit_jax.tasks.base import Defaults
from beit_jax.train import train
from tests import tiny
from tests.optim import by_name

PLAN = Plan(total=1000, warmup=100, log=50, save=0)
PARAMS = {
    "encoder": {
        "patch_embed": {"kernel": np.zeros((2, 2))},
        "blocks": {"mlp": {"kernel": np.zeros((12, 2, 2)), "bias": np.zeros((12, 2))}},
    },
    "head": {"bias": np.zeros(2)},
}
# What BEiT's published run told of itself at its end (unilm#383), and plausible others.
HEALTHY = {
    "train/loss": 6.2994,
    "train/top1": 0.05,
    "train/grad_norm": 0.4236,
    "train/clipped": 0.0,
    "train/update_norm": 0.01,
    "train/parameter_norm": 50.0,
    "train/learning_rate": 1e-3,
}


def settings(**changes):
    return c.change(c.defaults().optim, **changes)


def alarms(task=None, plan=PLAN, **changes):
    task = task or Defaults()
    return Alarms(task, settings(**changes), plan)


def heard(watch, *reports, start=200):
    """All sentences on reports that each differ from a healthy one."""
    steps = range(start, 10**6, PLAN.log)
    told = [
        watch.hear(HEALTHY | {f"train/{name}": x for name, x in report.items()}, step)
        for step, report in zip(steps, reports, strict=False)
    ]
    return [sentence for sentences in told for sentence in sentences]


SETTINGS = [
    ({"min_lr": 2e-3}, "learning rate: optim.min_lr=0.002 is above optim.lr=0.0015"),
    (
        {"weight_decay": 1e-8},
        "weight decay: optim.weight_decay=1e-08 takes .* in the whole run",
    ),
    (
        {"freeze": "encoder"},
        "weight decay: optim.weight_decay=0.05 acts on nothing, .*; set it to 0",
    ),
    (
        {"layer_decay": 0.3},
        "layer decay: optim.layer_decay=0.3 lets the lowest layer that trains move by "
        "1.2e-07",
    ),
]


def of(settings, plan):
    """What is said of the section `optim` before a run."""
    made = optimizers.make(settings, plan, PARAMS, by_name.layers(PARAMS))
    return of_settings(plan, made)


@pytest.mark.parametrize("changes, wanted", SETTINGS)
def test_a_setting_without_effect_is_told(changes, wanted):
    (sentence,) = of(settings(**changes), PLAN)
    assert re.match(wanted, sentence)


def test_a_warm_up_of_most_of_the_run_is_told():
    plan = PLAN._replace(warmup=501)
    (sentence,) = of(settings(), plan)
    assert sentence.startswith("warm-up: 501 of 1000 steps, more than half, are")


@pytest.mark.parametrize(
    "changes", [{}, {"layer_decay": 0.65, "lr": 4e-3}, {"weight_decay": 0.0}]
)
def test_published_settings_raise_no_alarm(changes):
    assert of(settings(**changes), PLAN) == []


def test_layer_decay_is_held_against_the_layers_that_train():
    assert of(settings(layer_decay=0.3, freeze_blocks=6), PLAN) == []


@pytest.mark.parametrize("changes", [{"layer_decay": 0.3}, {"weight_decay": 1e-8}])
def test_nothing_is_said_of_how_far_other_steps_than_adams_lead(changes):
    assert of(settings(name="sgd", **changes), PLAN) == []


TROUBLES = [
    ({"update_norm": 1e-6}, "learning rate: updates of norm 1.0e-06 .* are lost in"),
    ({"grad_norm": 5.0}, "gradient norm: 5 since the last report, 12 times its usual"),
    ({"loss": 6.9, "top1": 0.001}, "accuracy: top-1 of 0.10% and loss 6.900 .*6.908"),
]


@pytest.mark.parametrize("trouble, wanted", TROUBLES)
def test_a_trouble_is_told_once_until_it_has_passed(trouble, wanted):
    watch = alarms(SimpleNamespace(classes=1000, warnings=lambda *_: {}))
    assert heard(watch, *[{}] * 8) == []
    (sentence,) = heard(watch, *[trouble] * 5, start=600)
    assert re.match(wanted, sentence)
    assert heard(watch, *[{}] * 5, start=700) == []
    (again,) = heard(watch, *[trouble] * 5, start=750)
    assert re.match(wanted, again)


def test_a_rate_that_the_schedule_takes_to_zero_is_no_alarm():
    end = {"update_norm": 1e-9, "learning_rate": 1e-9}
    assert heard(alarms(min_lr=0.0), end, start=PLAN.total) == []


def test_four_reports_do_not_tell_chance():
    watch = alarms(SimpleNamespace(classes=1000, warnings=lambda *_: {}))
    blind = {"loss": 6.9, "top1": 0.001}
    assert heard(watch, *[blind] * 4, start=600) == []
    assert heard(watch, blind, start=800) != []


def test_steps_that_are_always_clipped_are_told_and_often_is_not_always():
    always, often = {"clipped": 1.0, "grad_norm": 9.0}, {"clipped": 0.9}
    (sentence,) = heard(alarms(), *[always] * 8)
    assert sentence.startswith("clipping: 100% of the steps of 5 reports were clipped")
    assert heard(alarms(), *[always, always, often] * 4) == []
    assert heard(alarms(clip_norm=0.0), *[always] * 8) == []


def test_a_limit_far_above_all_gradients_is_told():
    (sentence,) = heard(alarms(clip_norm=300.0), {}, {})
    assert "came near optim.clip_norm=300, their norm was 0.424 at most" in sentence
    assert heard(alarms(clip_norm=300.0), {}, {}, start=50) == []  # too early to tell
    assert heard(alarms(clip_norm=300.0), {"clipped": 0.01}, {}) == []


def test_warm_up_tells_nothing_of_norms():
    watch = alarms(plan=PLAN._replace(warmup=500))
    assert heard(watch, {"update_norm": 0.0}, start=500) == []
    assert heard(watch, {"update_norm": 0.0}, start=550) != []


def test_reports_of_earlier_versions_are_heard_in_silence():
    watch, old = alarms(clip_norm=300.0), dict(HEALTHY)
    del old["train/clipped"], old["train/parameter_norm"]
    assert [watch.hear(old, step) for step in range(200, 600, 50)] == [[]] * 8


def test_what_a_task_finds_is_told_by_split():
    task = Defaults()
    task.warnings = lambda metrics, progress: {"loss": f"{metrics['loss']} {progress}"}
    watch = alarms(task)
    assert watch.hear({"eval/loss": 7.0}, 500) == ["loss: 7.0 0.5"]
    assert watch.hear({"eval/loss": 8.0}, 600) == []
    # Of a named evaluation it is said of which, and told once for itself.
    assert watch.hear({"eval_v2/loss": 7.0}, 600) == ["eval_v2/loss: 7.0 0.6"]
    assert watch.hear({"eval_v2/loss": 7.0}, 700) == []
    assert heard(watch, {"loss": 9.0}, start=500) == ["loss: 9.0 0.5"]


def test_a_run_that_goes_on_tells_only_what_is_new(tmp_path, before_step):
    """Its settings again, for they may have been changed."""
    still = {"optim__lr": 0.0, "optim__min_lr": 0.0, "optim__clip_norm": 0.0}
    short = {"steps": 4, "optim__warmup_steps": 1, "log__every_steps": 1}
    config = tiny.config("probe", data__eval_source={}, **still, **short)
    before_step(3, lambda _: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Preempted):
        train(config, tmp_path, quiet=True)
    before_step(None, None)
    train(config, tmp_path, quiet=True)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    told = [record for record in map(json.loads, lines) if "warning" in record]
    assert [(record["step"], record["warning"].split(":")[0]) for record in told] == [
        (0, "weight decay"),
        (2, "learning rate"),
        (3, "weight decay"),
    ]
