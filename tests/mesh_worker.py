"""Trains a tiny task on eight pretended devices; prints how far the meshes differ.

python -m tests.mesh_worker TASK: one JSON object on the last line, mesh -> numbers.
Apart from the tests, because the number of devices is settled when JAX starts.
"""

import json
import pathlib
import sys
import tempfile

import jax
import numpy as np

from beit_jax import sharding, tasks
from beit_jax.checkpoints import frozen as frozen_lib
from beit_jax.checkpoints.keeper import Checkpointer
from beit_jax.config import Plan
from beit_jax.data import pipeline
from beit_jax.run import state as state_lib
from beit_jax.run.evaluator import Evaluator, evaluations
from beit_jax.run.step import make_update
from tests import tiny

MESHES = {"one": (1, 1, 1), "data": (8, 1, 1), "fsdp": (2, 4, 1), "all": (2, 2, 2)}
STEPS = 3
GROUPS = {"classify": {"head": {"prefix": "head", "name": "sgd", "lr": 1e-2}}}


def start(config, shape):
    """Mesh, task, stream, and the `state.Blueprint` of a run."""
    devices = jax.devices()[: np.prod(shape)]
    mesh = sharding.make_mesh(dict(zip(sharding.AXES, shape, strict=True)), devices)
    task = tasks.build(config)
    stream = pipeline.train_stream(config.data, task.train_spec, config.seed)
    spec = sharding.batch_spec(stream.spec, mesh)
    plan = Plan.from_config(config, 1.0)
    with jax.set_mesh(mesh):
        plans = state_lib.abstract(task, config, plan, mesh, spec)
    return mesh, task, plan, stream, plans


def trained(config, shape):
    """The state after STEPS steps, the loss of each, and an evaluation's metrics."""
    mesh, task, plan, stream, plans = start(config, shape)
    losses = []
    with jax.set_mesh(mesh):
        now = plans.fresh(config.seed)
        frozen = jax.device_put(frozen_lib.load(task.frozen), sharding.replicated(mesh))
        update = make_update(task, plans.optimizer, config, plans.shardings, mesh)
        for _, batch in zip(range(STEPS), stream.batches(), strict=False):
            now, sums = update(now, frozen, sharding.put_batch(batch, mesh))
            losses.append(float(sums["loss"][0] / sums["loss"][1]))
        (test,) = evaluations(config, task)
        metrics, _ = Evaluator(task, mesh, 0).measure(now, frozen, test, (0, 1))
    return now, losses, metrics


def farthest(a, b) -> float:
    """The largest difference between two trees."""
    a, b = jax.device_get((a, b))
    distances = jax.tree.map(
        lambda x, y: float(np.max(np.abs(np.subtract(x, y, dtype=np.float64)))), a, b
    )
    return max(jax.tree.leaves(distances))


def split(now) -> int:
    """How many parameters a single device does not hold whole."""
    return sum(not x.sharding.is_fully_replicated for x in jax.tree.leaves(now.params))


def moved_to_one_device(config, now) -> float:
    """Saves a state and restores it on one device; the largest difference."""
    with tempfile.TemporaryDirectory() as folder:
        with Checkpointer(pathlib.Path(folder), config, {}) as run:
            run.save(STEPS, now, {"step": STEPS})
        mesh, *_, plans = start(config, MESHES["one"])
        with jax.set_mesh(mesh), Checkpointer(pathlib.Path(folder), config, {}) as run:
            back, notes = run.restore(plans.state, {})
        assert not notes and split(back) == 0, notes
        return farthest(now, back)


def main(task: str) -> None:
    # A large eps: Adam would turn rounding in tiny gradients into whole steps.
    changes = {"optim__eps": 1e-2, "optim__groups": GROUPS.get(task, {})}
    config = tiny.config(task, data__batch_size=16, **changes)
    found = {}
    want, losses, metrics = trained(config, MESHES["one"])
    for name, shape in list(MESHES.items())[1:]:
        now, others, measured = trained(config, shape)
        found[name] = {
            "learnt": abs(losses[-1] - losses[0]),
            "losses": max(abs(a - b) for a, b in zip(losses, others, strict=True)),
            "state": farthest(want, now),
            "metrics": farthest(metrics, measured),
            "split": split(now),
        }
    found["all"]["restored"] = moved_to_one_device(config, now)
    print(json.dumps(found))


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_disable_most_optimizations", True)  # compiles faster
    main(sys.argv[1])
