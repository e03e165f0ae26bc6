"""Parameters of two stacked blocks, and how an optimizer moves them."""

import jax
import numpy as np
import optax

from beit_jax import config as config_lib
from beit_jax.config import Plan
from beit_jax.optim import optimizers, schedules
from tests.optim import by_name

STEPS = 4
PLAN = Plan(total=STEPS, warmup=1, log=0, save=0)
SETTINGS = {"lr": 0.1, "min_lr": 0.0, "weight_decay": 0.1, "clip_norm": 0.0}
SETTINGS |= {"momentum": 0.95, "b2": 0.99, "eps": 1e-6}
# Two blocks of width 8 with two heads; the matrix of fc2 is one that is factored.
SHAPES = {
    "attn/qkv": (2, 8, 3, 2, 4),
    "attn/proj/kernel": (2, 2, 4, 8),
    "mlp/fc2/kernel": (2, 130, 128),
    "mlp/fc1/bias": (2, 16),
}


def drawn(seed: int):
    rng = np.random.default_rng(seed)
    flat = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    tree = {}
    for name, leaf in flat.items():
        *folders, last = name.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = leaf.astype(np.float32)
    return {"blocks": tree}


def leaf(tree, name):
    for part in ("blocks", *name.split("/")):
        tree = tree[part]
    return np.asarray(tree, np.float64)


def ours(name: str, **changes) -> list:
    """The parameters before the first and after each step."""
    settings = config_lib.new(optim=SETTINGS | {"name": name} | changes).optim
    params = drawn(0)
    tx = optimizers.make(settings, PLAN, params, by_name.layers(params)).tx

    @jax.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    moments, after = tx.init(params), [params]
    for number in range(STEPS):
        params, moments = step(params, moments, drawn(1 + number))
        after.append(jax.device_get(params))
    return after


def rate(step):
    return schedules.make({"name": "cosine"}, PLAN, SETTINGS["lr"], 0.0)(step, xp=np)
