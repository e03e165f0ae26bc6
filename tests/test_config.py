"""Recipes: what they may say, and the durations that follow from them."""

import json

import pytest

from beit_jax import config as config_lib
from beit_jax.config import Plan


@pytest.mark.parametrize(
    "sections, message",
    [
        ({"sed": 1}, "unknown key 'sed'; did you mean 'seed'?"),
        ({"optim": {"wieght_decay": 1.0}}, "'optim.wieght_decay'.*'weight_decay'"),
        ({"data": {"augment": {"flipp": True}}}, "'data.augment.flipp'.*'flip'"),
        ({"xyzzy": 1}, "unknown key 'xyzzy'$"),
        ({"seed": "one"}, "seed='one' must be of type int"),
        ({"seed": 1.5}, "seed=1.5 must be of type int"),
        ({"seed": True}, "seed=True must be of type int"),
        ({"steps": "ten"}, "steps='ten' must be of type int"),
        ({"optim": {"lr": "1e-3"}}, "optim.lr='1e-3' must be of type float"),
        ({"data": {"augment": {"flip": 1}}}, "flip=1 must be of type bool"),
        ({"optim": 3}, "optim=3 must be a section of keys"),
        ({"task": "pretrain"}, "task='pretrain' must be a section of keys"),
    ],
)
def test_a_wrong_key_is_named(sections, message):
    with pytest.raises(ValueError, match=message):
        config_lib.new(**sections)


def test_all_wrong_keys_are_told_at_once():
    with pytest.raises(ValueError, match="'optim.rl'.*'sed'"):
        config_lib.new(sed=1, optim={"rl": 1.0})


def test_the_defaults_are_valid_but_for_their_length():
    config = config_lib.new()
    with pytest.raises(ValueError, match="set steps or epochs"):
        config_lib.check(config)
    config.epochs = 1.0
    config_lib.check(config)


def test_a_missing_key_is_named():
    config = config_lib.new(steps=1)
    with config.unlocked():
        del config.optim["lr"]
    with pytest.raises(ValueError, match="missing key 'optim.lr'"):
        config_lib.check(config)


def test_an_integer_may_stand_for_a_float():
    assert config_lib.new(optim={"lr": 1}).optim.lr == 1.0


@pytest.mark.parametrize("name", config_lib.OPEN)
def test_open_sections_take_any_key(name):
    inner = {"name": "x", "whatever": 3, "deeper": {"still": "anything"}}
    first, _, second = name.partition(".")
    config = config_lib.new(**{first: {second: inner} if second else inner})
    section = config[first][second] if second else config[first]
    assert inner.items() <= section.to_dict().items()


def test_the_pixel_space_is_written_down():
    assert config_lib.new(model={"dim": 8}).model.pixels == "half"
    assert config_lib.new(model={"pixels": "imagenet"}).model.pixels == "imagenet"


def test_sections_keep_the_defaults_that_a_recipe_does_not_name():
    config = config_lib.new(optim={"lr": 1.0}, data={"mask": {"name": "random"}})
    want = config_lib.defaults()
    assert config.optim.weight_decay == want.optim.weight_decay
    assert config.data.augment.to_dict() == want.data.augment.to_dict()


def test_new_does_not_share_its_defaults():
    config_lib.new().optim.lr = 7.0
    assert config_lib.new().optim.lr != 7.0


def recipe():
    return config_lib.new(
        steps=3,
        init_fresh="head,fc_norm",
        task={"name": "pretrain", "target": {"name": "tokens", "checkpoint": "x"}},
        model={"image_size": 32, "taps": (1, 2)},
        data={"source": {"name": "digits"}, "mask": {"max_patches": 5}},
    )


def test_a_config_survives_json():
    config = recipe()
    again = config_lib.from_dict(json.loads(config.to_json()))
    assert again.to_dict() == config.to_dict()
    assert again.model.taps == (1, 2), "JSON's lists must become tuples again"
    assert again.to_json() == config.to_json()


def test_a_saved_config_loads_the_same(tmp_path):
    config_lib.save(recipe(), tmp_path / "config.json")
    assert (
        config_lib.from_dict(
            json.loads((tmp_path / "config.json").read_text())
        ).to_dict()
        == recipe().to_dict()
    )


def test_smaller_changes_keys_at_any_depth():
    config = config_lib.smaller(recipe(), data__augment__flip=False, seed=5)
    assert (config.steps, config.seed, config.data.augment.flip) == (6, 5, False)
    config_lib.check(config)


def plan(steps_per_epoch: float = 10.0, optim=None, **lengths) -> Plan:
    config = config_lib.new(optim=optim or {}, **lengths)
    return Plan.from_config(config, steps_per_epoch)


def test_steps_win_over_epochs():
    assert plan(steps=7, epochs=2.0).total == 7


def test_epochs_are_rounded_up_to_steps():
    assert plan(epochs=2.0).total == 20
    assert plan(3.25, epochs=3.0).total == 10


def test_warmup_steps_win_over_warmup_epochs():
    epochs, both = {"warmup_epochs": 1.5}, {"warmup_epochs": 1.5, "warmup_steps": 0}
    assert plan(epochs=4.0, optim=epochs).warmup == 15
    assert plan(epochs=4.0, optim=both).warmup == 0


def test_a_warmup_that_leaves_no_steps_is_refused():
    with pytest.raises(ValueError, match="warm-up of 20 steps leaves nothing of 20"):
        plan(epochs=2.0, optim={"warmup_epochs": 2.0})


def test_a_run_cut_short_by_steps_warms_up_for_half_of_it():
    assert plan(steps=6, epochs=300.0, optim={"warmup_epochs": 10.0}).warmup == 3
    assert plan(steps=1, optim={"warmup_epochs": 10.0}).warmup == 0


@pytest.mark.parametrize(
    "lengths",
    [{"steps": 0}, {"steps": -3}, {"epochs": 0.0}]
    + [{"steps": 5, "log": {"every_steps": -1}}],
)
def test_an_empty_run_and_negative_intervals_are_refused(lengths):
    with pytest.raises(ValueError, match="must be at least|not a single step"):
        plan(**lengths)


def test_a_schedule_that_ends_within_the_warm_up_is_refused():
    with pytest.raises(ValueError, match="decay_steps=3 must be beyond the warm-up"):
        plan(steps=10, optim={"warmup_steps": 3, "decay_steps": 3})


def test_a_recipe_on_drawn_images_needs_none_of_its_data_sets():
    there = {"name": "folder", "path": "/nowhere"}
    evals = {"v2": {"source": there, "every_steps": 5}}
    data = {"source": there, "eval_source": there}
    config = config_lib.new(model={"image_size": 32}, data=data, evals=evals)
    config = config_lib.synthetic(config)
    for source in (config.data.source, config.data.eval_source, config.evals.v2.source):
        assert source.name == "synthetic"
    assert config.evals.v2.every_steps == 5
