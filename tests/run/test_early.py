"""Early stopping: when it ends a run, and that an interruption changes nothing."""

import math

import pytest

from beit_jax import config as config_lib
from beit_jax.run.early import EarlyStop
from beit_jax.run.stop import Preempted
from beit_jax.train import train
from tests import tiny
from tests.test_train import terminate


def stops_at(workdir, values, **settings):
    """The evaluation, counted from 1, after which a run ends; None: none."""
    section = config_lib.new(early_stop={"metric": "eval/x"} | settings).early_stop
    early = EarlyStop(section, workdir, 0, 100)
    for step, value in enumerate(values, 1):
        if early.hear({"eval/x": value}, step):
            assert early.end == step + 1
            return step
    assert early.end == 100
    return None


@pytest.mark.parametrize(
    "values, settings, wanted",
    [
        ([1, 2, 3, 3, 3], {"patience": 2}, 5),
        ([1, 2, 3, 2, 4, 1, 2], {"patience": 2}, 7),
        ([1, 2, 3, 4, 5], {"patience": 1}, None),
        ([3, 2, 1, 1], {"patience": 1, "mode": "min"}, 4),
        ([1, 1.05, 1.08, 1.2], {"patience": 2, "min_delta": 0.1}, 3),
        ([1, math.nan, math.nan], {"patience": 2}, 3),
        ([5, 4, 3, 2, 1], {"metric": ""}, None),
    ],
)
def test_a_run_ends_when_nothing_was_better_for_long_enough(
    tmp_path, values, settings, wanted
):
    assert stops_at(tmp_path, values, **settings) == wanted


@pytest.fixture
def config():
    """Nothing is better than what step 1 gives: it ends after step 2, of 6."""
    stop = {"metric": "eval/top1", "patience": 1, "min_delta": 1.0}
    config = tiny.config("classify", eval__every_steps=1)
    config.early_stop.update(stop)
    config.evals.v2 = {"source": {"name": "synthetic", "num_examples": 4}}
    return config


def test_a_run_ends_early_with_all_its_evaluations_and_stays_ended(config, tmp_path):
    metrics = train(config, tmp_path, quiet=True)
    assert tiny.saved_steps(tmp_path) == [3]
    assert metrics["eval_v2/examples"] == 4  # which is done at the end only
    notes = (tmp_path / "notes.txt").read_text()
    assert "stops early, at step 3: eval/top1 was best at step 1, 0." in notes
    assert train(config, tmp_path, quiet=True) == metrics
    assert tiny.saved_steps(tmp_path) == [3]
    config.early_stop.patience = 2  # more of it: the run goes on
    train(config, tmp_path, quiet=True)
    assert tiny.saved_steps(tmp_path) == [4]


@pytest.mark.slow
def test_an_interruption_does_not_change_where_a_run_ends(
    config, tmp_path, before_step
):
    train(config, tmp_path / "straight", quiet=True)
    before_step(2, terminate)
    with pytest.raises(Preempted):
        train(config, tmp_path / "broken", quiet=True)
    train(config, tmp_path / "broken", quiet=True)
    assert tiny.fingerprint(tmp_path / "straight") == tiny.fingerprint(
        tmp_path / "broken"
    )


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"metric": "eval/tpo1"},
            "early_stop.metric='eval/tpo1' is no metric of.*top1",
        ),
        ({"mode": "most"}, "early_stop.mode='most' must be one of max, min"),
        ({"metric": "eval_v2/top1"}, "is measured at the end only; set eval.every"),
    ],
)
def test_a_metric_that_cannot_end_a_run_is_refused(config, tmp_path, changes, message):
    config.early_stop.update(changes)
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path, quiet=True)
