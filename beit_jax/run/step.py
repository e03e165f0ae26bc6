"""The compiled training step: gradients, accumulation, update."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from beit_jax import sharding
from beit_jax.optim import layers
from beit_jax.optim.optimizers import Optimizer
from beit_jax.run import state as state_lib
from beit_jax.run.finite import move_if
from beit_jax.run.state import TrainState
from beit_jax.tasks.base import Aux, Context

Tree = Any
Gradients = Callable[[TrainState, Tree, Tree, jax.Array], tuple[Tree, Aux]]
Loss = Callable[[Tree, Tree, Context], tuple[jax.Array, Aux]]  # of params and a batch


def make_update(
    task,
    optimizer: Optimizer,
    config: ConfigDict,
    shardings: TrainState,
    mesh: Mesh,
) -> "Update":
    """The compiled step: (state, frozen, global batch) -> (next state, metric sums).

    The given state's buffers are reused for the next one. A step whose loss or
    gradients are not finite changes nothing but its number.
    """
    settings = config.optim
    gradients = make_gradients(task, optimizer, settings.accumulate)

    def update(state: TrainState, frozen: Tree, batch: Tree, key):
        grads, aux = gradients(state, frozen, batch, key)
        norm = optax.global_norm(grads)
        finite = jnp.isfinite(jnp.stack([*aux.metrics["loss"], norm])).all()
        params, opt_state, moved = move_if(finite, optimizer.tx, grads, state)
        ema = state.ema
        if ema is not None:
            ema = optimizer.average(ema, params, state.step)
        carried = (ema, aux.model_state), (state.ema, state.model_state)
        ema, model_state = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old), *carried
        )
        metrics = aux.metrics | {
            "grad_norm": (norm, 1.0),
            "parameter_norm": (optax.global_norm(state.params), 1.0),
            "update_norm": (moved, 1.0),
        }
        for name, value in optimizer.scheduled(state.step).items():
            metrics[name] = (value, 1.0)
        if settings.clip_norm:
            metrics["clipped"] = (norm > settings.clip_norm, 1.0)
        return TrainState(state.step + 1, params, opt_state, model_state, ema), metrics

    everywhere = sharding.replicated(mesh)
    step = jax.jit(update, donate_argnums=0, out_shardings=(shardings, everywhere))
    # An argument, not a constant: other seeds find the program in XLA's cache.
    return Update(step, config.seed, everywhere)


def make_gradients(task, optimizer: Optimizer, accumulate: int) -> Gradients:
    """(state, frozen, batch, the run's key) -> the gradients of a step, and what came
    with them."""

    def loss(params, batch, ctx):
        return task.train_loss(layers.hold(params, optimizer.scales), batch, ctx)

    def gradients(state: TrainState, frozen: Tree, batch: Tree, key):
        rng = jax.random.fold_in(key, state.step)
        ctx = Context(state.step, rng, state.model_state, frozen, state.ema)
        return accumulated(loss, accumulate, state.params, batch, ctx)

    return gradients


class Update:
    """A compiled step with the key of its run.

    Attributes:
      step: the jitted function, of (state, frozen, batch, key).
    """

    def __init__(self, step: Callable, seed: int, everywhere: jax.sharding.Sharding):
        self.step, self._seed, self._everywhere = step, seed, everywhere

    @functools.cached_property
    def _key(self) -> jax.Array:
        # Not before a step is done: the mesh may be of devices that are not here.
        return state_lib.key(self._seed, self._everywhere)

    def __call__(
        self, state: TrainState, frozen: Tree, batch: Tree
    ) -> tuple[TrainState, Tree]:
        return self.step(state, frozen, batch, self._key)

    def trace(self, state: TrainState, frozen: Tree, batch: Tree) -> jax.stages.Traced:
        """The step's equations; shapes with shardings do for its arguments."""
        key = state_lib.key_shape(self._everywhere)
        return self.step.trace(state, frozen, batch, key)

    def lower(self, state: TrainState, frozen: Tree, batch: Tree) -> jax.stages.Lowered:
        """The step's program, of the same."""
        return self.trace(state, frozen, batch).lower()


def accumulated(
    loss: Loss, parts: int, params: Tree, batch: Tree, ctx: Context
) -> tuple[Tree, Aux]:
    """Gradients of `loss` by `params`, in `parts` passes over parts of the batch.

    Each is weighed by what its loss counts, so that the sum is the gradient of the one
    large batch. But each part draws drop path anew, and finds the partners of Mixup and
    CutMix in itself.
    """
    gradients = jax.grad(loss, has_aux=True)
    if parts == 1:
        return gradients(params, batch, ctx)

    def one(carry, part):
        total, model_state = carry
        index, batch = part
        rng = jax.random.fold_in(ctx.rng, index)
        ctx_of_part = ctx._replace(rng=rng, model_state=model_state)
        grads, aux = gradients(params, batch, ctx_of_part)
        weight = aux.metrics["loss"][1]
        total = jax.tree.map(lambda t, g: t + weight * g, total, grads)
        return (total, aux.model_state), aux.metrics

    split = sharding.parts(batch, parts)
    zeros = jax.tree.map(jnp.zeros_like, params)
    (total, model_state), metrics = jax.lax.scan(
        one, (zeros, ctx.model_state), (jnp.arange(parts), split)
    )
    metrics = jax.tree.map(lambda m: jnp.sum(m, axis=0), metrics)
    weight = jnp.maximum(metrics["loss"][1], 1e-9)
    return jax.tree.map(lambda g: g / weight, total), Aux(metrics, model_state)
