"""A recipe's training step without data, arrays or the devices that it is for."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from beit_jax import sharding
from beit_jax.checkpoints import frozen as frozen_lib
from beit_jax.checkpoints.names import flatten
from beit_jax.config import Plan
from beit_jax.data.spec import spec_of
from beit_jax.run import state as state_lib
from beit_jax.run.step import make_update
from beit_jax.tasks.base import Task

Tree = Any


class Step(NamedTuple):
    """A training step that is traced, and what it is a step of."""

    config: ConfigDict
    plan: Plan
    mesh: Mesh
    state: Tree  # shapes with shardings
    batch: dict[str, jax.ShapeDtypeStruct]
    traced: jax.stages.Traced


def trace(
    config: ConfigDict, task: Task, devices: Sequence[jax.Device], epoch: int
) -> Step:
    """The step of a run on these devices, of `epoch` examples.

    Raises:
      ValueError: the config does not fit the devices, or not itself.
    """
    mesh = sharding.make_mesh(config.mesh, devices)
    size = config.data.batch_size
    sharding.check_batch_size(size, mesh, config.optim.accumulate)
    plan = Plan.from_config(config, epoch / size)
    batch = sharding.batch_spec(spec_of(task.train_spec, size), mesh)
    everywhere = sharding.replicated(mesh)
    frozen = jax.tree.map(
        lambda leaf: leaf.update(sharding=everywhere), frozen_lib.shapes(task.frozen)
    )
    # Before the mesh is set, see there.
    plans = state_lib.abstract(task, config, plan, mesh, batch)
    with jax.set_mesh(mesh):
        update = make_update(task, plans.optimizer, config, plans.shardings, mesh)
        traced = update.trace(plans.state, frozen, batch)
    return Step(config, plan, mesh, plans.state, batch, traced)


def nbytes(shapes: Tree) -> int:
    """Of all arrays, each counted once however it is sharded."""
    leaves = jax.tree.leaves(shapes)
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def places(state: Tree) -> dict[str, list]:
    """Path -> [shape, mesh axes that each dimension is split over] of every array."""
    return {
        path: [list(leaf.shape), list(leaf.sharding.spec)]
        for path, leaf in flatten(state).items()
    }
