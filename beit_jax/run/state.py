"""What a run carries from step to step, and how it is first made on the mesh."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, Sharding
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


def key_shape(where: Sharding | None = None) -> jax.ShapeDtypeStruct:
    """A random key's, made without one: no device need be here."""
    return jax.eval_shape(jax.random.key, 0).update(sharding=where)


def key(seed: int, where: Sharding) -> jax.Array:
    """One placed as its shape was: what was traced for that serves for this."""
    return jax.device_put(jax.random.key(seed), where)


def _variables(task, batch: Tree) -> Callable[[jax.Array], Tree]:
    """An rng -> what `task.init` makes; traced once, however often it is asked."""
    return jax.jit(lambda rng: task.init(rng, jax.tree.map(_zeros, batch)))


def _zeros(spec) -> jax.Array:
    return jnp.zeros(spec.shape, spec.dtype)


def abstract_variables(task, batch: Tree) -> Tree:
    """What `task.init` makes: shapes and dtypes, boxed with the names of their axes."""
    return jax.eval_shape(_variables(task, batch), key_shape())


class Blueprint(NamedTuple):
    """A run's state before there is one.

    Attributes:
      state: shapes and dtypes, each with its sharding.
      optimizer: the run's.
      fresh: a seed -> the state, in place on the mesh.
    """

    state: TrainState
    optimizer: Optimizer
    fresh: Callable[[int], TrainState]

    @property
    def shardings(self) -> TrainState:
        return jax.tree.map(lambda leaf: leaf.sharding, self.state)


def abstract(
    task, config: ConfigDict, plan: Plan, mesh: Mesh, batch: Tree
) -> Blueprint:
    """A run's state without an array: to be made, restored or compiled for.

    Args:
      mesh: its devices need not be here. If they are not, it must not be set yet: Optax
        makes numbers, which would have to lie there.
      batch: shapes and dtypes of a global batch.
    """
    variables = _variables(task, batch)
    everywhere = sharding.replicated(mesh)
    boxed = jax.eval_shape(variables, key_shape(everywhere))
    params = nn.unbox(boxed["params"])
    optimizer = optimizers.make(config.optim, plan, params, task.layers(params))

    @jax.jit
    def fresh(rng) -> TrainState:
        made = nn.unbox(variables(rng))
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

    shapes = jax.eval_shape(fresh, key_shape(everywhere))
    shardings = _shardings(boxed, shapes, optimizer, mesh)
    state = jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=where
        ),
        shapes,
        shardings,
    )
    make = jax.jit(fresh, out_shardings=shardings)
    return Blueprint(state, optimizer, lambda seed: make(key(seed, everywhere)))


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
            lambda leaf, where, param: _place(leaf, where, param, everywhere),
            shapes.opt_state,
            params,
            shapes.params,
            transform_non_params=lambda _: everywhere,
            is_leaf=_is_nothing,
        ),
        model_state=sharding.shardings_of(boxed["model_state"], mesh),
        ema=None if shapes.ema is None else params,
    )


def _place(leaf, where: Sharding, param, everywhere: Sharding):
    """Where a moment of `param` lies."""
    if _is_nothing(leaf):  # a group of parameters has nothing where the others' are
        return leaf
    return where if leaf.shape == param.shape else everywhere  # sums of rows are small


def _is_nothing(leaf) -> bool:
    return isinstance(leaf, optax.MaskedNode)
