"""What a run carries from step to step, and how it is first made on the mesh."""

from typing import Any

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


def create(
    task, config: ConfigDict, plan: Plan, mesh: Mesh, batch: Tree
) -> tuple[TrainState, TrainState, Optimizer]:
    """A fresh state made in place on the mesh, its shardings, and its optimizer.

    Args:
      batch: shapes and dtypes of a global batch.
    """

    rng = jax.random.key(config.seed)
    boxed = abstract_variables(task, batch)
    params = nn.unbox(boxed["params"])
    optimizer = optimizers.make(config.optim, plan, params, task.layers(params))
    tx = optimizer.tx

    def fresh(rng) -> TrainState:
        made = nn.unbox(_variables(task, batch, rng))
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=made["params"],
            opt_state=tx.init(made["params"]),
            model_state=made["model_state"],
            # A copy: two leaves of a donated state must not share a buffer.
            ema=jax.tree.map(jnp.copy, made["params"])
            if config.optim.ema_decay
            else None,
        )

    abstract = jax.eval_shape(fresh, rng)
    everywhere = sharding.replicated(mesh)
    params = sharding.shardings_of(boxed["params"], mesh)
    shardings = TrainState(
        step=everywhere,
        params=params,
        opt_state=optax.tree.map_params(
            tx,
            lambda _, where: where,
            abstract.opt_state,
            params,
            transform_non_params=lambda _: everywhere,
        ),
        model_state=sharding.shardings_of(boxed["model_state"], mesh),
        ema=None if abstract.ema is None else params,
    )
    return jax.jit(fresh, out_shardings=shardings)(rng), shardings, optimizer
