"""What a run keeps of its config says all that the code would fill in."""

import inspect
import json

import flax.linen as nn
import pytest

from beit_jax import config as config_lib
from beit_jax import lookup, shipped, tasks
from beit_jax.checkpoints.read import restore
from beit_jax.data import sources
from beit_jax.evaluate import evaluate
from beit_jax.run import whole as whole_lib
from beit_jax.run.whole import whole
from beit_jax.tasks.classify import Classify
from beit_jax.train import train
from tests import tiny


@pytest.mark.parametrize("task", tiny.TASKS)
def test_the_defaults_of_all_that_a_config_names_are_written(task):
    made = whole(tiny.config(task))
    asked = [(made.task, whole_lib.TASK), (made.data.source, whole_lib.SOURCE)]
    asked += [(made.data.mask, whole_lib.PLAIN["data.mask"])]
    asked += [(made.task[k], t) for k, t in tasks.SECTIONS.items() if k in made.task]
    if task != "probe":
        tokenizer = task == "tokenizer"
        table = whole_lib.TOKENIZER if tokenizer else whole_lib.BACKBONE
        asked.append((made.model, table))
    for section, table in asked:
        settings = lookup.settings(table.entries[section["name"]], table.given)
        assert {*settings} - {"init_as"} <= {*section}


@pytest.mark.parametrize("name", shipped.names())
def test_it_is_whole_once_and_means_the_same(name):
    config = config_lib.load(name, "tiny")
    made = whole(config)
    assert whole(made).to_dict() == made.to_dict()
    again = config_lib.from_dict(json.loads(made.to_json()))
    assert again.to_dict() == made.to_dict()
    old, new = tasks.build(config), tasks.build(again)
    for attribute in ("network", "encoder"):
        have = getattr(new, attribute)
        assert not isinstance(have, nn.Module) or have == getattr(old, attribute)
    assert (new.train_spec, new.eval_spec) == (old.train_spec, old.eval_spec)


def test_what_a_variant_gives_is_left_to_its_name():
    config = config_lib.load("beit_pretrain")
    made = whole(config).model
    assert made.variant == "base" and not {"dim", "depth", "layer_scale"} & {*made}
    assert made.patch_size == 16


def test_the_parts_of_a_mixture_are_whole():
    part = {"name": "digits"}
    config = tiny.config("classify")
    config.data.source = {"name": "mixture", "parts": (part, part)}
    parts = whole(config).data.source.parts
    assert [one["size"] for one in parts] == [32, 32]
    sources.build(whole(config).data.source)


def test_what_a_config_cannot_hold_is_left_out():
    def brew(
        cup, minutes: float = 3.0, taste=len, sugar=None, herbs: tuple = ("mint",)
    ):
        pass

    table = lookup.Table({"brew": brew})
    made = lookup.completed({"cup": 1, "name": "brew"}, table)
    kept = {"minutes": 3.0, "sugar": None, "herbs": ("mint",)}
    assert made == {"name": "brew", "cup": 1} | kept


def test_network_and_head_of_a_task_of_ones_own_are_left_to_it(monkeypatch):
    class Own(Classify):
        def __init__(self, config, classes, head=(), calm=0.5):
            super().__init__(config, classes, head=head)

    monkeypatch.setitem(tasks.TASKS, "own", Own)
    config = tiny.config("classify")
    config.task = {"name": "own", "classes": 4}
    made = whole(config)
    assert made.task.to_dict() == {"name": "own", "classes": 4, "head": (), "calm": 0.5}
    assert made.model == config.model and made.data.source.size == 32


def test_a_default_that_changes_leaves_old_runs_as_they_were(tmp_path, monkeypatch):
    config = tiny.config("classify", steps=2)
    metrics = train(config, tmp_path, quiet=True)
    start = inspect.signature(Classify.__init__)
    later = start.replace(
        parameters=[
            p.replace(default=0.5) if p.name == "label_smoothing" else p
            for p in start.parameters.values()
        ]
    )
    monkeypatch.setattr(Classify.__init__, "__signature__", later, raising=False)
    assert evaluate(tmp_path) == metrics
    assert restore(tmp_path).config["task"]["label_smoothing"] == 0.1
    config.steps = 4
    with pytest.raises(ValueError, match=r"label_smoothing=0.1, this run has 0.5"):
        train(config, tmp_path, quiet=True)


def test_a_run_that_kept_less_goes_on(tmp_path, monkeypatch):
    """As all runs did that were begun before."""
    config = tiny.config("classify", steps=2)
    with monkeypatch.context() as before:
        before.setattr("beit_jax.train.whole", lambda config: config)
        train(config, tmp_path, quiet=True)
    assert "label_smoothing" not in restore(tmp_path).config["task"]
    config.steps = 4
    train(config, tmp_path, quiet=True)
    assert restore(tmp_path).config["task"]["label_smoothing"] == 0.1
    config.task.label_smoothing = 0.3
    with pytest.raises(ValueError, match=r"label_smoothing=0.1, this run has 0.3"):
        train(config, tmp_path, quiet=True)
