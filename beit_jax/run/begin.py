"""The state with which a run begins, or goes on."""

from typing import NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from beit_jax import sharding
from beit_jax.checkpoints.keeper import Checkpointer
from beit_jax.optim.optimizers import Optimizer
from beit_jax.run.alarms import of_settings
from beit_jax.run.parts import Parts
from beit_jax.run.state import TrainState, create
from beit_jax.run.warm_start import warm_start


class Begun(NamedTuple):
    """A state in its place on the mesh, and what belongs to it."""

    state: TrainState
    shardings: TrainState
    optimizer: Optimizer
    notes: list[str]  # on where it is from
    doubts: list[str]  # what a user should be warned of


def begin(config: ConfigDict, parts: Parts, mesh: Mesh, run: Checkpointer) -> Begun:
    """Restores the newest whole checkpoint of `run`, or makes a fresh state.

    Raises:
      ValueError: a checkpoint that cannot be read, or is of another run.
    """
    spec = sharding.batch_spec(parts.stream.spec, mesh)
    state, shardings, optimizer = create(parts.task, config, parts.plan, mesh, spec)
    doubts = of_settings(parts.plan, optimizer)
    # Restored before the warm start: a run that goes on has weights of its own.
    state, notes = run.restore(state, shardings, parts.position)
    if int(state.step) == 0 and config.init_from:
        known = parts.card["class_names"]
        state, report, more = warm_start(config, parts.task, state, known)
        notes, doubts = [*notes, report], more + doubts
    return Begun(state, shardings, optimizer, notes, doubts)
