"""Curves of metrics.jsonl."""

import json
import types

import numpy as np
import pytest
from PIL import Image

from beit_jax import curves
from tests.test_commands import command, finish


@pytest.fixture
def run(tmp_path):
    """A work directory that has told of two steps, and was killed in a third."""
    folder = tmp_path / "first" / "pretrain"
    folder.mkdir(parents=True)
    lines = [
        {"step": 2, "train/loss": 3.0, "train/lr": 0.1},
        {"step": 2, "warning": "it is slow"},
        {"step": 4, "train/loss": None},
        {"step": 6, "train/loss": 1.0},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + '{"step": 8, "tra')
    return folder


def test_a_run_is_read_as_far_as_it_has_told(run):
    told = curves.read(run)
    assert told.keys() == {"train/loss", "train/lr"}
    steps, values = told["train/loss"]
    assert steps.tolist() == [2, 4, 6]
    np.testing.assert_array_equal(values, [3, np.nan, 1])


def test_smoothing_takes_the_mean_of_the_last_points():
    steps, values = np.arange(5), np.array([4.0, 2.0, np.nan, 6.0, 1.0])
    same, means = curves.smoothed((steps, values), 2)
    assert same is steps and means.tolist() == [4, 3, 2, 6, 3.5]
    np.testing.assert_array_equal(curves.smoothed((steps, values), 1)[1], values)


def test_a_metric_that_no_run_has_is_refused_with_the_nearest(run):
    with pytest.raises(ValueError, match="'train/los'; did you mean 'train/loss'"):
        curves.collect([str(run)], ["train/los"])
    with pytest.raises(ValueError, match="no .*metrics.jsonl; name the work directory"):
        curves.collect([str(run.parent)], ["train/loss"])


def test_a_picture_of_no_known_form_is_refused(run):
    options = types.SimpleNamespace(out="curves.pgn", metric=["train/loss"], smooth=1)
    with pytest.raises(ValueError, match="--out=curves.pgn does not end as a picture"):
        curves.main(options, str(run))


def test_the_command_draws_all_runs_and_tells_what_is_missing(run, tmp_path):
    second = tmp_path / "second" / "pretrain"
    second.mkdir(parents=True)
    (second / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2}\n')
    out = tmp_path / "new" / "curves.png"
    metrics = "train/loss,train/lr"
    code, said, err = finish(
        command("curves", run, second, "--metric", metrics, "--out", out)
    )
    assert code == 0 and said == f"wrote {out}\n"
    assert err == f"{second} has not told 'train/lr': it has no line\n"
    with Image.open(out) as picture:
        assert picture.size == (1200, 432)  # two panels
