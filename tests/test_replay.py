"""Numbers that are not finite: never in parameters, counted, and found again."""

import json

import numpy as np
import pytest

from beit_jax.replay import replay
from beit_jax.train import train
from tests import tiny


def spoil(rows):
    """Makes the light of some examples of a batch not a number."""

    def act(batch):
        weight = batch["weight"].copy()
        weight[rows] = np.nan
        return batch | {"weight": weight}

    return act


def run(workdir, **changes):
    config = tiny.config("classify", log__every_steps=2, **changes)
    return train(config, workdir, quiet=True)


@pytest.mark.parametrize("step", [1, 4, 6])
def test_a_bad_step_is_left_out_and_counted(step, tmp_path, before_step):
    """Its neighbours are taken: the run is that of the other batches."""
    before_step(step, spoil([0]))
    metrics = run(tmp_path, optim__max_left_out=1)
    assert all(map(np.isfinite, metrics.values()))
    for name, array in tiny.arrays(tmp_path).items():
        assert np.isfinite(array).all(), name
    lines = tiny.lines(tmp_path, "train/steps_left_out")
    at = step + step % 2
    assert [(line["step"], line["train/steps_left_out"]) for line in lines] == [(at, 1)]


def test_a_step_that_is_left_out_leaves_no_trace(tmp_path, before_step):
    """Only the rate's schedule goes on; parameters and moments are those before."""
    run(tmp_path / "two", steps=2, epochs=None)
    before_step(3, spoil([1]))
    run(tmp_path / "three", steps=3, epochs=None, optim__max_left_out=1)
    before, after = (tiny.arrays(tmp_path / name) for name in ("two", "three"))
    moved = [k for k in before if not np.array_equal(before[k], after[k])]
    assert all(np.ndim(before[k]) == 0 for k in moved), moved
    assert after["step"] == 3


def test_one_too_many_ends_the_run_and_can_be_replayed(tmp_path, before_step):
    before_step(5, spoil([2, 6]))
    with pytest.raises(FloatingPointError, match="loss is nan at step 5; no .*replay"):
        run(tmp_path)
    assert max(tiny.saved_steps(tmp_path)) == 4
    bundle = json.loads((tmp_path / "failed_step_0000005.json").read_text())
    assert bundle["step"] == 5 and bundle["loss"] == "nan"
    assert len(bundle["examples"]) == 8
    kept = tiny.fingerprint(tmp_path)
    told = replay(tmp_path)
    assert told["step"] == 5 and np.isnan(told["loss"])
    assert told["examples"] == [tuple(bundle["examples"][row]) for row in (2, 6)]
    assert "head/kernel" in told["parameters"]
    assert tiny.fingerprint(tmp_path) == kept
    before_step(None, None)
    assert np.isfinite(replay(tmp_path)["loss"])  # nothing is wrong with the data
    with pytest.raises(ValueError, match="is of step 4: nothing is left from"):
        replay(tmp_path, step=4)


def test_a_run_without_a_failed_step_says_so(tmp_path):
    with pytest.raises(ValueError, match="no failed_step_N.json"):
        replay(tmp_path)
