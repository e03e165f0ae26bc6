"""Configs that earlier versions saved are brought to today's keys; recipes are told."""

import json

import pytest

from beit_jax import config as config_lib
from beit_jax import moved
from beit_jax.data import frames
from beit_jax.lookup import build
from tests import tiny

# `data.augment` as every config had it before there were frames.
BEFORE = {
    "crop": "random_resized",
    "min_scale": 0.08,
    "max_scale": 1.0,
    "min_ratio": 0.75,
    "max_ratio": 4 / 3,
    "pad": 4,
    "crop_pct": 1.0,
}
FULL = {"max_scale": 1.0, "min_ratio": 0.75, "max_ratio": 4 / 3}


def older(config, **augment) -> dict:
    """A config as it was saved before there were frames."""
    values = json.loads(config.to_json())
    for key in ("frame", "eval_frame"):
        del values["data"][key]
    values["data"]["augment"] |= BEFORE | augment
    return values


@pytest.mark.parametrize(
    "augment, frame",
    [
        ({"min_scale": 0.3}, {"name": "random_resized", "min_scale": 0.3, **FULL}),
        ({"crop": "square", "min_scale": 0.3}, {"name": "square"}),
        ({"crop": "pad", "pad": 2}, {"name": "pad", "pad": 2}),
    ],
)
def test_a_crop_of_an_older_config_is_a_frame(augment, frame):
    values = older(tiny.config("classify"), crop_pct=0.875, **augment)
    copy = json.loads(json.dumps(values))
    config = config_lib.from_dict(values)
    assert values == copy
    assert config.data.frame.to_dict() == frame
    assert config.data.eval_frame.to_dict() == {"name": "centre", "crop_pct": 0.875}
    build(frames.FRAMES, config.data.frame, "data.frame")


def test_todays_configs_are_not_changed():
    values = json.loads(tiny.config("classify").to_json())
    assert moved.upgraded(values) == values


@pytest.mark.parametrize("old, new", moved.MOVED.items())
def test_a_recipe_with_a_key_of_an_earlier_version_is_told_the_new_one(old, new):
    first, section, key = old.split(".")
    with pytest.raises(ValueError, match=f"{old} is now {new}$"):
        config_lib.new(**{first: {section: {key: 1}}})


def test_a_key_that_is_gone_is_left_out_or_refused_with_the_reason(monkeypatch):
    row = moved.Gone("every image is seen once")
    monkeypatch.setitem(moved.MOVED, "data.twice", row)
    assert moved.upgraded({"data": {"twice": 3}, "seed": 1}) == {"data": {}, "seed": 1}
    with pytest.raises(ValueError, match="no data.twice any more: every image is seen"):
        config_lib.new(data={"twice": 3})


def test_a_frame_keeps_the_defaults_that_a_recipe_does_not_name():
    for given in ({"min_scale": 0.5}, {"name": "random_resized", "min_scale": 0.5}):
        frame = config_lib.new(data={"frame": given}).data.frame.to_dict()
        assert frame == {"name": "random_resized", "min_scale": 0.5, **FULL}
    frame = config_lib.new(data={"frame": {"name": "square"}}).data.frame
    assert frame.to_dict() == {"name": "square"}
