"""Groups move as if each had its optimizer; the clipped norm is that of all."""

import signal

import jax
import numpy as np
import optax
import pytest

from beit_jax import config as config_lib
from beit_jax import sharding, tasks
from beit_jax.checkpoints.names import flatten, nest
from beit_jax.config import Plan
from beit_jax.optim import optimizers
from beit_jax.run import state as state_lib
from beit_jax.run.alarms import of_settings
from beit_jax.run.stop import Preempted
from beit_jax.train import train
from tests import tiny
from tests.optim import by_name
from tests.tasks import runs

PLAN = Plan(total=5, warmup=2, log=0, save=0)
SHAPES = {
    "encoder/cls_token": (1, 1, 3),
    "encoder/blocks/norm1/scale": (3, 4),
    "encoder/blocks/mlp/fc1/kernel": (3, 4, 8),
    "head/kernel": (4, 2),
    "head/bias": (2,),
}
LARS = {"name": "lars", "lr": 3.0, "min_lr": 0.1, "weight_decay": 0.2}
POLY = {"lr": 0.3, "schedule": {"name": "poly"}, "weight_decay_end": 0.5, "b2": 0.9}


def trees(seed: int):
    rng = np.random.default_rng(seed)
    return nest({k: rng.standard_normal(v, np.float32) for k, v in SHAPES.items()})


def settings(**changes):
    optim = {"lr": 0.1, "clip_norm": 0.0, "eps": 1e-3} | changes
    return config_lib.new(optim=optim).optim


def make(config, params, layers=None):
    return optimizers.make(config, PLAN, params, layers or by_name.layers(params))


def moved(tx, params, clipping=None):
    """The parameters after three steps of random gradients."""
    state = tx.init(params)
    for seed in range(1, 4):
        grads = trees(seed)
        if clipping:
            grads, _ = optimizers.clip(clipping).update(grads, optax.EmptyState())
        grads = {name: grads[name] for name in params}
        updates, state = jax.jit(tx.update)(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


def assert_close(got, wanted):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6), got, wanted)


@pytest.mark.parametrize("part", ["head", "encoder"])
@pytest.mark.parametrize("own", [LARS, POLY])
def test_groups_move_as_two_optimizers(part, own):
    params = trees(0)
    numbers = by_name.layers(params)
    given = {"clip_norm": 0.5, "layer_decay": 0.5}
    grouped = settings(**given, groups={"own": {"prefix": part, **own}})
    got = moved(make(grouped, params).tx, params)
    for name in params:
        # Layers are counted over the whole network: so are its factors here.
        alone = settings(layer_decay=0.5, **(own if name == part else {}))
        alone.freeze = ",".join(params.keys() - {name})
        lone = moved(make(alone, params, numbers).tx, params, clipping=0.5)
        assert_close(got[name], lone[name])


def test_what_rests_rests_in_a_group_too():
    params = trees(0)
    groups = {"own": {"prefix": "encoder/blocks", "lr": 1.0}}
    tx = make(settings(freeze_blocks=2, groups=groups), params).tx
    after = moved(tx, params)["encoder"]
    kernel, before = after["blocks"]["mlp"]["fc1"]["kernel"], params["encoder"]
    start = before["blocks"]["mlp"]["fc1"]["kernel"]
    np.testing.assert_array_equal(kernel[:2], start[:2])
    np.testing.assert_array_equal(after["cls_token"], before["cls_token"])
    assert np.all(kernel[2] != start[2])


def test_each_group_tells_its_own_rates():
    groups = {"own": {"prefix": "head", "lr": 0.4, "weight_decay_end": 1.0}}
    told = make(settings(groups=groups), trees(0)).scheduled(np.int32(1))
    assert told.keys() == {"learning_rate", "learning_rate/own", "weight_decay/own"}
    np.testing.assert_allclose(told["learning_rate/own"], 0.4)
    np.testing.assert_allclose(told["learning_rate"], 0.1)


@pytest.mark.parametrize(
    "groups, message",
    [
        ({"own": {"lr": 1.0}}, "optim.groups.own needs a prefix"),
        ({"own": "head"}, "optim.groups.own needs a prefix"),
        ({"own": {"prefix": "haed"}}, "groups.own='haed': .* did you mean 'head'"),
        ({"rest": {"prefix": "head"}}, "'rest' cannot name a group"),
        ({"a/b": {"prefix": "head"}}, "'a/b' cannot name a group"),
        ({"own": {"prefix": "head", "weight_decy": 0.1}}, "did you mean 'weight_dec"),
        ({"own": {"prefix": "head", "clip_norm": 1.0}}, "else is the whole run's"),
        ({"own": {"prefix": "head", "lr": "1"}}, "own: .*lr='1' must be of type float"),
        (
            {"own": {"prefix": "head", "b1": 2.0}},
            "own: .*b1=2.0 must be at least 0 and below 1",
        ),
        ({"own": {"prefix": "head", "name": "adam"}}, "no 'adam' in optim.groups.own"),
        (
            {"a": {"prefix": "head"}, "b": {"prefix": "encoder,head/bias"}},
            "both 'a' and 'b' cover head/bias",
        ),
    ],
)
def test_a_group_that_cannot_be_is_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        make(settings(groups=groups), trees(0))


def test_an_alarm_names_the_group_that_it_is_about():
    groups = {"own": {"prefix": "head", "min_lr": 1.0, "weight_decay": 0.0}}
    (told,) = of_settings(PLAN, make(settings(groups=groups), trees(0)))
    assert told.startswith("learning rate: optim.groups.own.min_lr=1 is above optim.gr")


GROUPS = {
    "head": {"prefix": "head", "name": "sgd", "lr": 1e-2, "weight_decay_end": 0.0}
}
GROUPS |= {"tables": {"prefix": "encoder/blocks/attn", "lr": 1e-4}}


def test_moments_lie_where_their_parameters_do():
    """By the names of the axes, which a mesh of one device has too."""
    config = runs.config("classify", optim__groups=GROUPS)
    task, mesh = tasks.build(config), sharding.make_mesh({}, jax.devices()[:1])
    plan = Plan.from_config(config, 1.0)
    with jax.set_mesh(mesh):
        plans = state_lib.abstract(task, config, plan, mesh, runs.batch(task))
    shardings = plans.shardings
    assert jax.tree.structure(plans.state) == jax.tree.structure(shardings)
    params, found = flatten(shardings.params), {}
    for name, where in flatten(shardings.opt_state).items():
        for kind in ("mu", "nu", "trace"):
            if path := name.partition(f"/{kind}/")[2]:
                assert where == params[path], name
                found.setdefault(kind, set()).add(path)
    head = {path for path in params if path.startswith("head/")}
    assert found["trace"] == head
    assert found["mu"] == found["nu"] == params.keys() - head


def test_a_run_with_groups_goes_on_as_if_it_had_not_stopped(tmp_path, before_step):
    config = tiny.config("classify", data__eval_source={}, optim__groups=GROUPS)
    train(config, tmp_path / "whole", quiet=True)
    before_step(3, lambda _: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Preempted):
        train(config, tmp_path / "halves", quiet=True)
    before_step(None, None)
    train(config, tmp_path / "halves", quiet=True)
    prints = [tiny.fingerprint(tmp_path / name) for name in ("whole", "halves")]
    assert prints[0] == prints[1] and any("/trace/" in path for path in prints[0])
    told = tiny.lines(tmp_path / "whole", "train/learning_rate/head")
    assert told[0]["train/learning_rate/head"] > told[0]["train/learning_rate"]
