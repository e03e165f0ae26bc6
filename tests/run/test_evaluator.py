"""Evaluations: what a scorer is given and when, and several of them in one run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax import sharding, tasks
from beit_jax.data import pipeline
from beit_jax.evaluate import evaluate
from beit_jax.run.checks import check_metrics
from beit_jax.run.evaluator import Evaluation, Evaluator, evaluations
from beit_jax.run.state import TrainState
from beit_jax.tasks.base import Defaults
from beit_jax.tasks.scorers import Report
from beit_jax.tasks.scores import Reliability
from beit_jax.train import train
from tests import tiny

STATE = TrainState(step=0, params={}, opt_state=None, model_state={}, ema=None)


class Noting(Defaults):
    """A task that computes of each example its label, and its own scorer."""

    train_spec = {
        "image": jax.ShapeDtypeStruct((8, 8, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((), jnp.int32),
    }

    def __init__(self):
        self.batches, self.arrays = [], []

    def eval_step(self, params, batch, ctx):
        assert batch.keys() == {"image", "label", "weight"}
        return {"label": batch["label"]}

    def scorer(self, info):
        return self

    def add(self, outputs, index):
        self.batches.append((outputs["label"], index))
        self.arrays.append(len(jax.live_arrays()))

    def metrics(self):
        return {"batches": float(len(self.batches))}

    def report(self):
        bins = (np.zeros(15),) * 3
        return Report({}, {"chart": Reliability(*bins, 0.0)})


def measured(examples: int, task: Noting):
    """(metrics, evaluator, evaluation); the label of each example is its index."""
    config = {
        "batch_size": 4,
        "eval_source": {
            "name": "synthetic",
            "num_examples": examples,
            "num_classes": examples,
            "size": 8,
        },
    }
    stream = pipeline.eval_stream(config, task.eval_spec, seed=0)
    evaluation = Evaluation("eval_digits", stream, 0)
    evaluator = Evaluator(task, sharding.make_mesh({}, jax.devices()[:1]), 0)
    metrics, scorer = evaluator.measure(STATE, {}, evaluation, (0, 1))
    assert scorer is task
    return metrics, evaluator, evaluation


def test_a_scorer_knows_which_examples_it_is_given():
    task = Noting()
    metrics, *_ = measured(10, task)
    assert metrics == {"eval_digits/batches": 3, "eval_digits/examples": 10}
    labels, index = map(np.concatenate, zip(*task.batches, strict=True))
    np.testing.assert_array_equal(index, [*range(10), -1, -1])
    np.testing.assert_array_equal(labels[:10], range(10))


def test_nothing_piles_up_on_the_device():
    """However many batches there are, the outputs of two at most are alive."""
    task = Noting()
    measured(80, task)
    assert len(task.arrays) == 20
    assert len(set(task.arrays[1:-1])) == 1, task.arrays


def test_only_the_first_host_draws_charts_and_only_if_pictures_are_wanted():
    task = Noting()
    _, evaluator, evaluation = measured(4, task)

    def painted(host: int, count: int) -> list[str]:
        return list(evaluator.paint(STATE, {}, evaluation, (host, 2), count, task))

    assert painted(0, 1) == ["chart"]
    assert painted(1, 1) == painted(0, 0) == []


def split(seed: int, **settings) -> dict:
    source = {"name": "synthetic", "num_examples": 12, "seed": seed}
    return {"source": source, **settings}


def config(**changes):
    """Measured on two more splits, one of which decides what is the best step."""
    evals = {"often": split(2, every_steps=2), "late": split(3)}
    settings = {"evals": evals, "optim__lr": 1.0, "optim__warmup_steps": 0}
    settings["eval__pictures"] = 2
    best = {"checkpoint__best": "eval_often/loss", "checkpoint__best_mode": "min"}
    return tiny.config("classify", **settings | best | changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(work directory, metrics) of a run with three evaluations."""
    workdir = tmp_path_factory.mktemp("evals") / "run"
    return workdir, train(config(), workdir, quiet=True)


def of(name: str, metrics: dict) -> dict:
    return {k: v for k, v in metrics.items() if k.startswith(f"{name}/")}


def test_every_evaluation_is_told_by_its_name_when_it_is_due(run):
    workdir, metrics = run
    names = {key.split("/")[0] for key in metrics}
    assert names == {"eval", "eval_often", "eval_late"}
    last = {}
    for name, steps in (("eval", [6]), ("eval_often", [2, 4, 6]), ("eval_late", [6])):
        lines = tiny.lines(workdir, f"{name}/top1")
        assert [line.pop("step") for line in lines] == steps
        last |= lines[-1]
    assert last == metrics == train(config(), workdir, quiet=True)  # is complete
    plain, often = of("eval", metrics), of("eval_often", metrics)
    assert len(plain) == len(often)
    assert plain["eval/loss"] != often["eval_often/loss"]


def test_the_step_that_a_named_evaluation_finds_best_is_kept(run):
    workdir, _ = run
    loss = "eval_often/loss"
    lines = {line["step"]: line[loss] for line in tiny.lines(workdir, loss)}
    best = min(lines, key=lines.get)
    assert best != 6 and tiny.saved_steps(workdir) == [best, 6]


def test_pictures_of_several_evaluations_do_not_overwrite_each_other(run):
    names = {path.name for path in (run[0] / "pictures").iterdir()}
    kinds = ("attention", "confusion", "reliability")
    steps = {"": [6], "eval_often_": [2, 4, 6], "eval_late_": [6]}
    assert names == {
        f"{prefix}{kind}_{step:07d}.png"
        for prefix, told in steps.items()
        for step in told
        for kind in kinds
    }


def test_a_checkpoint_is_measured_on_the_named_splits_that_are_asked_for(run, tmp_path):
    workdir, metrics = run
    plain, often = of("eval", metrics), of("eval_often", metrics)
    assert evaluate(workdir) == plain
    assert evaluate(workdir, evals=["often"], out=str(tmp_path)) == plain | often
    for folder, wanted in (("", plain), ("eval_often", often)):
        found = {path.name for path in (tmp_path / folder).iterdir() if path.suffix}
        assert json.loads((tmp_path / folder / "metrics.json").read_text()) == wanted
        assert found >= {"confusion.png", "confusion.csv", "per_class.csv"}
    assert not (tmp_path / "eval_late").exists()
    assert evaluate(workdir, evals=["all"]) == metrics
    with pytest.raises(ValueError, match="no 'offen' in .*did you mean 'often'"):
        evaluate(workdir, evals=["offen"])


def test_named_splits_are_enough(run):
    workdir, metrics = run
    changed = config(data__eval_source={})
    late = of("eval_late", metrics)
    assert evaluate(workdir, changed, evals=["late"]) == late
    with pytest.raises(ValueError, match="nothing to evaluate on; .*--evals with"):
        evaluate(workdir, changed)


def test_a_run_goes_on_with_other_evaluations(run, tmp_path, before_step):
    """And tells of each as often as if it had never been broken off."""

    def cut_power(_):
        raise KeyboardInterrupt

    before_step(6, cut_power)  # of steps 1 to 5, 4 is saved
    with pytest.raises(KeyboardInterrupt):
        train(config(), tmp_path, quiet=True)
    before_step(None, None)
    others = {"often": split(2, every_steps=2), "new": split(4)}
    metrics = train(config(evals=others), tmp_path, quiet=True)
    assert of("eval_often", metrics) == of("eval_often", run[1])
    assert of("eval_new", metrics) and not of("eval_late", metrics)
    lines = tiny.lines(tmp_path, "eval_often/loss")
    assert lines == tiny.lines(run[0], "eval_often/loss")


@pytest.mark.parametrize(
    "evals, message",
    [
        ({"v2": {"sorce": {}}}, "evals.v2 takes no setting 'sorce'.*'source'"),
        ({"v2": {"every_steps": 2}}, "evals.v2 needs a setting 'source'"),
        ({"v2": split(1, every_steps="2")}, "every_steps='2' must be of type int"),
        ({"v2": split(1, every_steps=-2)}, "every_steps=-2 must be at least 0"),
        ({"v2": "folder"}, "evals.v2='folder' must be a section with a source"),
        ({"2nd": split(1)}, "evals.2nd: a name has letters"),
        ({"all": split(1)}, "evals.all: a name .* is not 'all'"),
        ({"v2": {"source": {"name": "foldr"}}}, "no 'foldr' in beit_jax.data.sources"),
    ],
)
def test_an_evaluation_that_cannot_be_is_refused(evals, message):
    settings = tiny.config("classify", evals=evals)
    with pytest.raises(ValueError, match=message):
        evaluations(settings, tasks.build(settings))


def test_classes_of_a_named_split_are_held_against_the_tasks(tmp_path):
    wrong = split(1)
    wrong["source"]["num_classes"] = 5
    with pytest.raises(ValueError, match="task.classes=4, but .* has 5"):
        train(config(evals={"often": wrong}), tmp_path, quiet=True)


@pytest.mark.parametrize(
    "best, message",
    [
        ("eval_offen/loss", "did you mean 'eval_often/loss'"),
        ("eval/los", "did you mean 'eval/loss'"),
        ("train/loss", "there are eval/loss, .*eval_late/macro_f1"),
    ],
)
def test_what_no_evaluation_measures_cannot_be_best(best, message):
    settings = config(checkpoint__best=best)
    task = tasks.build(settings)
    with pytest.raises(ValueError, match=message):
        check_metrics(settings, task, evaluations(settings, task))


def test_without_evaluations_nothing_can_be_best():
    changes = {"evals": {}, "data__eval_source": {}, "checkpoint__best": "eval/loss"}
    settings = config(**changes)
    task = tasks.build(settings)
    with pytest.raises(ValueError, match="there are none: give data.eval_source"):
        check_metrics(settings, task, evaluations(settings, task))
