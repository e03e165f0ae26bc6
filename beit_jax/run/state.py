"""What a run carries from step to step, and how it is first made on the mesh."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from beit_jax import sharding
from beit_jax.config import Plan
from beit_jax.optim import optimizers
from beit_jax.optim.optimizers import Optimizer

Tree = Any


@flax.struct.dataclass
class TrainState:
    """Everything that a restart needs; `step` is also the position in the data."""

    step: jax.Array  # int32, optimizer steps done
    params: Tree
    opt_state: Tree
    model_state: Tree  # mutable collections (an EMA codebook); {} for most
    ema: Tree | None  # running average of params

    @property
    def eval_params(self) -> Tree:
        return self.params if self.ema is None else self.ema


def _variables(task, batch: Tree, rng: jax.Array) -> Tree:
    zeros = jax.tree.map(lambda spec: jnp.zeros(spec.shape, spec.dtype), batch)
    return task.init(rng, zeros)


def abstract_variables(task, batch: Tree) -> Tree:
    """What `task.init` makes: shapes and dtypes, boxed with the names of their axes."""
    return jax.eval_shape(lambda rng: _variables(task, batch, rng), jax.random.key(0))


class Blueprint(NamedTuple):
    """A run's state before there is one.

    Attributes:
      state: shapes and dtypes, each with its sharding.
      fresh: an rng -> the state; to be compiled.
      optimizer: the run's.
    """

    state: TrainState
    fresh: Callable[[jax.Array], TrainState]
    optimizer: Optimizer

    @property
    def shardings(self) -> TrainState:
        return jax.tree.map(lambda leaf: leaf.sharding, self.state)


def abstract(
    task, config: ConfigDict, plan: Plan, mesh: Mesh, batch: Tree
) -> Blueprint:
    """What `create` makes, without an array: for compilers of steps ahead of time.

    Args:
      mesh: its devices need not be here.
      batch: shapes and dtypes of a global batch.
    """
    boxed = abstract_variables(task, batch)
    params = nn.unbox(boxed["params"])
    optimizer = optimizers.make(config.optim, plan, params, task.layers(params))

    def fresh(rng) -> TrainState:
        made = nn.unbox(_variables(task, batch, rng))
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=made["params"],
            opt_state=optimizer.tx.init(made["params"]),
            model_state=made["model_state"],
            # A copy: two leaves of a donated state must not share a buffer.
            ema=jax.tree.map(jnp.copy, made["params"])
            if config.optim.ema_decay
            else None,
        )

    shapes = jax.eval_shape(fresh, jax.random.key(config.seed))
    shardings = _shardings(boxed, shapes, optimizer, mesh)
    state = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=where
        ),
        shapes,
        shardings,
    )
    return Blueprint(state, fresh, optimizer)


def _shardings(
    boxed: Tree, shapes: TrainState, optimizer: Optimizer, mesh: Mesh
) -> TrainState:
    """Where each leaf is to lie; moments lie with their parameters."""
    everywhere = sharding.replicated(mesh)
    params = sharding.shardings_of(boxed["params"], mesh)
    return TrainState(
        step=everywhere,
        params=params,
        opt_state=optax.tree.map_params(
            optimizer.tx,
            lambda _, where: where,
            shapes.opt_state,
            params,
            transform_non_params=lambda _: everywhere,
        ),
        model_state=sharding.shardings_of(boxed["model_state"], mesh),
        ema=None if shapes.ema is None else params,
    )


def create(
    task, config: ConfigDict, plan: Plan, mesh: Mesh, batch: Tree
) -> tuple[TrainState, TrainState, Optimizer]:
    """A fresh state made in place on the mesh, its shardings, and its optimizer.

    Args:
      batch: shapes and dtypes of a global batch.
    """
    plans = abstract(task, config, plan, mesh, batch)
    make = jax.jit(plans.fresh, out_shardings=plans.shardings)
    return make(jax.random.key(config.seed)), plans.shardings, plans.optimizer
