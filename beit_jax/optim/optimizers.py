"""Optimizers with BEiT's schedule, decay mask, clipping, and factors on the rate."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from beit_jax.config import Plan
from beit_jax.lookup import lookup
from beit_jax.optim import layers as layers_lib
from beit_jax.optim import schedules

Tree = Any

# Parameters that weight decay leaves alone: the official code's "one-dimensional, or
# named bias, cls_token, pos_embed". By name, because stacking makes vectors 2-D.
# mask_token and the tables of relative positions do decay there, so here too. Codes of
# a quantizer do not: they are places among the latents, not weights.
NOT_DECAYED = frozenset(
    ["bias", "scale", "gamma_1", "gamma_2", "q_bias", "v_bias"]
    + ["cls_token", "pos_embed", "embedding"]
)


def decay_mask(params: Tree) -> Tree:
    """True where weight decay applies, by the last part of the parameter's path."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key not in NOT_DECAYED, params
    )


def clip(max_norm: float) -> optax.GradientTransformation:
    """Scales all gradients by min(1, max_norm / (norm + 1e-6)), PyTorch's rule."""

    def update(updates, _):
        scale = jnp.minimum(1.0, max_norm / (optax.global_norm(updates) + 1e-6))
        return jax.tree.map(lambda u: u * scale, updates)

    return optax.stateless(update)


def trust_ratios(adapted: Tree, layers: Tree) -> optax.GradientTransformation:
    """Scales updates by LARS's 0.001 |parameter| / |update| where `adapted` is True.

    `layers` says which parameters are blocks on top of each other, see `Task.layers`.

    Each of the stacked blocks has its own norms, as if it were alone. A norm of 0
    leaves the update as it is.
    """
    rule = optax.scale_by_trust_ratio(trust_coefficient=0.001)

    def alone(update, param):
        return rule.update(update, optax.EmptyState(), param)[0]

    def one(update, param, adapts, layer):
        if not adapts:
            return update
        return (jax.vmap(alone) if layer.ndim else alone)(update, param)

    return optax.stateless(
        lambda updates, params: jax.tree.map(one, updates, params, adapted, layers)
    )


def _adamw(
    config: ConfigDict, decayed: Tree, layers: Tree
) -> list[optax.GradientTransformation]:
    return [
        optax.scale_by_adam(config.b1, config.b2, config.eps),
        optax.add_decayed_weights(config.weight_decay, decayed),
    ]


def _sgd(
    config: ConfigDict, decayed: Tree, layers: Tree
) -> list[optax.GradientTransformation]:
    """PyTorch's: decay is part of the gradient that momentum gathers."""
    return [
        optax.add_decayed_weights(config.weight_decay, decayed),
        optax.trace(config.momentum),
    ]


def _lars(
    config: ConfigDict, decayed: Tree, layers: Tree
) -> list[optax.GradientTransformation]:
    """MAE's util/lars.py, for linear probes of large batches.

    Unlike `optax.lars`, momentum gathers updates before they have a learning rate. What
    does not decay is not adapted either; in MAE that is all with one dimension.
    """
    decay, momentum = _sgd(config, decayed, layers)
    return [decay, trust_ratios(decayed, layers), momentum]


# optim.name -> from (settings, where weights decay, layers) the steps that make it.
OPTIMIZERS = {"adamw": _adamw, "sgd": _sgd, "lars": _lars}


class Optimizer(NamedTuple):
    """How a run's parameters move.

    Attributes:
      tx: makes updates of gradients.
      scales: the factor on each parameter's learning rate, 0 where it is frozen.
      rate: (step, xp=jnp) -> the learning rate of optimizer step `step` (0-based).
    """

    tx: optax.GradientTransformation
    scales: Tree
    rate: Callable[..., Any]


def make(config: ConfigDict, plan: Plan, params: Tree, layers: Tree) -> Optimizer:
    """The optimizer of a run.

    Args:
      config: the section `optim`.
      params: unboxed parameters or their shapes; decides masks and factors.
      layers: the number of each one's layer, see `Task.layers`.

    Raises:
      ValueError: no such optimizer, or parameters that do not fit the settings.
    """
    rate = schedules.make(config.schedule, plan, config.lr, config.min_lr)
    kind = lookup(OPTIMIZERS, config.name, "optim.name")
    steps = [clip(config.clip_norm)] if config.clip_norm else []
    steps += kind(config, decay_mask(params), layers)
    scales = layers_lib.scales(config, params, layers)
    if not all(np.all(scale == 1) for scale in jax.tree.leaves(scales)):
        steps.append(
            optax.stateless(
                lambda updates, _: jax.tree.map(jnp.multiply, updates, scales)
            )
        )
    steps.append(optax.scale_by_learning_rate(rate))
    return Optimizer(optax.chain(*steps), scales, rate)
