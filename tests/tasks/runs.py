"""Tasks with made-up parameters and batches, for tests of single steps."""

import functools
import zlib

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from beit_jax import sharding, tasks
from beit_jax.checkpoints import frozen as frozen_lib
from beit_jax.config import Plan
from beit_jax.data.sources import Info
from beit_jax.optim import optimizers
from beit_jax.run import state, step
from beit_jax.tasks.base import Context
from tests import tiny
from tests.optim import by_name

# The smallest settings of every target; a new one needs a line here.
TARGETS = {
    "features": {"teacher": tiny.TEACHER},
    "hog": {},
    "pixels": {},
    "tokens": {"checkpoint": "untrained", "untrained": tiny.VQVAE},
}


def config(task: str, target: str = "", **changes) -> ConfigDict:
    """A task of `tests.tiny` in its plainest form: each step is one whole batch."""
    changes = {"optim__accumulate": 1, "optim__ema_decay": 0.0} | changes
    if task != "tokenizer":
        changes = {"model__drop_path": 0.0} | changes
    if target:
        changes["task__target"] = {"name": target} | TARGETS[target]
    return tiny.config(task, **changes)


def batch(task, size: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """Random examples of what the task asks for, with 1, 2, ... masked patches.

    They serve training and evaluation, which want images of one size here.
    """
    rng = np.random.default_rng(seed)
    made = {"weight": np.ones(size, np.float32)}
    for name, spec in (task.eval_spec | task.train_spec).items():
        shape = (size, *spec.shape)
        if name == "mask":
            rows = np.arange(np.prod(spec.shape)) <= np.arange(size)[:, None] % 6
            made[name] = rng.permuted(rows, axis=1).reshape(shape)
        elif name == "label":
            made[name] = rng.integers(0, task.classes, shape, np.int32)
        elif name in ("labels_2d", "label_map"):
            labels = rng.integers(0, task.classes + 1, shape)
            made[name] = np.where(labels < task.classes, labels, 255).astype(spec.dtype)
        elif name == "frame":
            made[name] = _frames(rng, size, *task.eval_spec["image"].shape[:2])
        elif name == "labels":
            made[name] = rng.integers(0, 2, shape).astype(np.float32)
        elif name == "numbers":
            made[name] = rng.standard_normal(shape, np.float32)
        else:
            made[name] = rng.integers(0, 256, shape, np.uint8)
    return made


def _frames(rng, count: int, height: int, width: int) -> np.ndarray:
    """(count, 11) of images of many sizes at the top left of a room."""
    own = rng.integers((height // 2, width // 2), (height + 1, width + 1), (count, 2))
    room = np.tile([0, 0, height, width, height, width, 0], (count, 1))
    return np.concatenate([own, own, room], axis=1).astype(np.int32)


def metrics(task, *outputs) -> dict[str, float]:
    """What an evaluation makes of the outputs of batches."""
    scorer = task.scorer(Info("a split", 0, (), 0))
    for batch in outputs:
        scorer.add(batch)
    return scorer.metrics()


def start(config: ConfigDict, size: int = 4):
    """(task, parameters, what a loss may use, a batch of `size` examples).

    Parameters are random, biases and position tables too, so that each has an effect;
    they do not come from `task.init`, whose compilation would take seconds.
    """
    task = tasks.build(config)
    examples = batch(task, size)
    spec = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in examples.items()}
    shapes = nn.unbox(state.abstract_variables(task, spec))
    made = jax.tree_util.tree_map_with_path(_random, shapes)
    frozen = _frozen(task, config.task.get("target"))
    context = Context(np.int32(0), jax.random.key(0), made["model_state"], frozen)
    return task, made["params"], context, examples


def _random(path, leaf) -> np.ndarray:
    if leaf.dtype == bool:
        return np.zeros(leaf.shape, bool)
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    around = 1 if name.endswith(("scale", "cluster_size", "var")) else 0
    return (around + 0.2 * rng.standard_normal(leaf.shape)).astype(leaf.dtype)


def _frozen(task, target: ConfigDict | None):
    if target is not None and target.name == "tokens":
        return _untrained_tokenizer()
    return jax.tree_util.tree_map_with_path(_random, frozen_lib.shapes(task.frozen))


@functools.cache
def _untrained_tokenizer():
    return frozen_lib.load(tasks.build(config("pretrain", "tokens")).frozen)


def updating(task, config: ConfigDict, params, ctx: Context):
    """(a state before its first step, the compiled update of the training loop)."""
    plan = Plan.from_config(config, 1.0)
    numbers = by_name.layers(params)
    optimizer = optimizers.make(config.optim, plan, params, numbers)
    zeros = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(optimizer.tx.init, params),
    )
    ema = params if config.optim.ema_decay else None
    now = state.TrainState(ctx.step, params, zeros, ctx.model_state, ema)
    mesh = sharding.make_mesh({}, jax.devices()[:1])
    where = jax.tree.map(lambda _: sharding.replicated(mesh), now)
    return now, step.make_update(task, optimizer, config, where, mesh)


def assert_gradients_equal(got, wanted):
    """Every tensor within 1e-6 of its own largest entry: float32's rounding."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            a, b, rtol=0, atol=1e-6 * np.abs(b).max()
        ),
        got,
        wanted,
    )
