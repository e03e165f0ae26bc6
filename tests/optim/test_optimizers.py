"""SGD and LARS, step by step against the formulas of PyTorch and of MAE's util/lars.py.

Tensor by tensor, in float64: each of our stacked blocks must move as if it were alone.
"""

import jax
import numpy as np
import optax
import pytest

from beit_jax import config as config_lib
from beit_jax.config import Plan
from beit_jax.optim import optimizers, schedules
from tests.agreement import assert_agrees
from tests.optim import by_name

STEPS, WARMUP = 6, 3
SETTINGS = {"lr": 2.0, "min_lr": 0.0, "weight_decay": 0.1, "clip_norm": 0.0}
PLAN = Plan(total=STEPS, warmup=WARMUP, log=0, save=0)
SHAPES = {"kernel": (3, 5, 4), "bias": (3, 4)}


def trees():
    """Parameters of three stacked linear layers, and a gradient for each step.

    The second layer starts at 0, and the third has no gradient at first.
    """
    rng = np.random.default_rng(0)
    params, *grads = (
        {name: rng.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}
        for _ in range(1 + STEPS)
    )
    params["kernel"][1], grads[0]["kernel"][2] = 0, 0
    return params, grads


def ours(name: str, params, grads) -> list:
    """The parameters after each step."""
    settings = config_lib.new(optim=SETTINGS | {"name": name}).optim
    params = {"blocks": params}
    tx = optimizers.make(settings, PLAN, params, by_name.layers(params)).tx

    @jax.jit
    def step(params, state, grads):
        updates, state = tx.update({"blocks": grads}, state, params)
        return optax.apply_updates(params, updates), state

    state, after = tx.init(params), []
    for each in grads:
        params, state = step(params, state, each)
        after.append(jax.device_get(params["blocks"]))
    return after


def torch_sgd(weight, grad, decays):
    return grad + SETTINGS["weight_decay"] * weight * decays


def mae_lars(weight, grad, decays):
    if not decays:
        return grad
    update = grad + SETTINGS["weight_decay"] * weight
    sizes = np.linalg.norm(weight), np.linalg.norm(update)
    return update * (0.001 * sizes[0] / sizes[1] if all(sizes) else 1)


@pytest.mark.parametrize("name, formula", [("sgd", torch_sgd), ("lars", mae_lars)])
def test_an_optimizer_follows_its_formula(name, formula):
    params, grads = trees()
    after = ours(name, params, grads)
    schedule = schedules.make({"name": "cosine"}, PLAN, SETTINGS["lr"], 0.0)
    for leaf in SHAPES:
        for block, weight in enumerate(params[leaf].astype(np.float64)):
            momentum = 0
            for step in range(STEPS):
                grad = grads[step][leaf][block]
                momentum = 0.9 * momentum + formula(weight, grad, leaf == "kernel")
                rate = schedule(step, xp=np)
                weight = weight - rate * momentum
                got = after[step][leaf][block]
                assert_agrees(f"formula of {name}", "a step", got, weight, 1e-5)


def test_an_optimizer_that_there_is_not_is_refused():
    settings = config_lib.new(optim={"name": "adam"}).optim
    with pytest.raises(
        ValueError, match="no 'adam' in optim.name; it has adafactor, ad"
    ):
        optimizers.make(settings, PLAN, *2 * ({"kernel": np.array(0)},))
