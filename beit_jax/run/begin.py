"""The state with which a run begins, or goes on."""

from typing import NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from beit_jax import sharding
from beit_jax.checkpoints.keeper import Checkpointer
from beit_jax.optim.optimizers import Optimizer
from beit_jax.run.alarms import of_settings
from beit_jax.run.parts import Parts
from beit_jax.run.state import TrainState, abstract
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
    plans = abstract(parts.task, config, parts.plan, mesh, spec)
    doubts = of_settings(parts.plan, plans.optimizer)
    state, notes = run.restore(plans.state, parts.position)
    if state is None:
        state = plans.fresh(config.seed)
        if config.init_from:
            known = parts.card["class_names"]
            state, report, more = warm_start(config, parts.task, state, known)
            notes, doubts = [*notes, report], more + doubts
    return Begun(state, plans.shardings, plans.optimizer, notes, doubts)
