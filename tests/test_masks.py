"""A share of the patches is a number of them."""

import json

import pytest

from beit_jax import config as c
from beit_jax import masks, tasks
from beit_jax.data import pipeline
from beit_jax.evaluate import evaluate
from beit_jax.train import train
from tests import tiny
from tests.tasks import runs


@pytest.mark.parametrize(
    ("settings", "patches", "hidden"),
    [({}, 196, 78), ({}, 16, 6), ({"unit": 2}, 196, 80), ({"ratio": 1}, 4, 4)],
)
def test_a_share_is_a_number_of_patches(settings, patches, hidden):
    mask = {"name": "random", "ratio": 0.4, **settings}
    assert masks.counted(mask, patches)["max_patches"] == hidden


def test_a_number_stays():
    mask = {"name": "blockwise", "max_patches": 75}
    assert masks.counted(mask, 196) == mask


@pytest.mark.parametrize("mask", [{"ratio": 0.0}, {"ratio": 40}, {"ratio": "x"}])
def test_what_is_no_share_is_refused(mask):
    with pytest.raises(ValueError, match="mask.ratio=.* a share of the patches"):
        masks.counted(mask, 196)


def test_one_of_both_is_wanted():
    with pytest.raises(ValueError, match="ratio=0.4 and max_patches=75"):
        masks.counted({"ratio": 0.4, "max_patches": 75}, 196)


def test_a_run_hides_the_share_that_its_number_would():
    config = runs.config("pretrain")
    config.data.mask = {"name": "random", "ratio": 0.5}
    task = tasks.build(config)
    stream = pipeline.train_stream(config.data, task.train_spec, seed=0)
    mask = next(stream.batches())["mask"]
    assert task.slots == mask[0].sum() == mask[0].size // 2


def test_a_run_with_a_ratio_is_measured_and_goes_on(tmp_path):
    """Defaults that are written down with it say nothing else."""
    config = tiny.config("pretrain", steps=2)
    config.data.mask = {"name": "random", "ratio": 0.5}
    metrics = train(config, tmp_path, quiet=True)
    assert evaluate(tmp_path) == metrics
    told = json.loads((tmp_path / "config.json").read_text())
    assert told["data"]["mask"]["ratio"] == 0.5
    assert "max_patches" not in told["data"]["mask"]
    told["data"]["mask"]["max_patches"] = 75  # as runs were kept for a while
    assert "max_patches" not in c.from_dict(told).data.mask
