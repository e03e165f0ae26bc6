"""Optimizers with BEiT's decay mask, clipping, factors on the rate, and groups."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from beit_jax.config import Plan
from beit_jax.lookup import lookup
from beit_jax.optim import groups as groups_lib
from beit_jax.optim import layers as layers_lib
from beit_jax.optim import matrices
from beit_jax.optim.groups import Group
from beit_jax.optim.schedules import Rate, over_the_run

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


def trust_ratios(
    adapted: Tree, layers: Tree, coefficient: float
) -> optax.GradientTransformation:
    """Scales updates by coefficient * |parameter| / |update| where `adapted` is True.

    Each of the blocks that `layers` (see `Task.layers`) tells to be stacked has its own
    norms, as if it were alone. A norm of 0 leaves the update as it is.
    """
    rule = optax.scale_by_trust_ratio(trust_coefficient=coefficient)

    def alone(update, param):
        return rule.update(update, optax.EmptyState(), param)[0]

    def one(update, param, adapts, layer):
        if not adapts:
            return update
        return (jax.vmap(alone) if layer.ndim else alone)(update, param)

    return optax.stateless(
        lambda updates, params: jax.tree.map(one, updates, params, adapted, layers)
    )


def _adamw(group: Group) -> list[optax.GradientTransformation]:
    """Adam with decay apart from the gradient (arXiv:1711.05101)."""
    settings = group.settings
    return [
        optax.scale_by_adam(settings.b1, settings.b2, settings.eps),
        optax.add_decayed_weights(group.decay, group.decayed),
    ]


def _sgd(group: Group) -> list[optax.GradientTransformation]:
    """PyTorch's: decay is part of the gradient that momentum gathers."""
    return [
        optax.add_decayed_weights(group.decay, group.decayed),
        optax.trace(group.settings.momentum),
    ]


def _lars(group: Group) -> list[optax.GradientTransformation]:
    """MAE's util/lars.py, for linear probes of large batches.

    Unlike `optax.lars`, momentum gathers updates before they have a learning rate. What
    does not decay is not adapted either; in MAE that is all with one dimension.
    """
    decay, momentum = _sgd(group)
    return [decay, trust_ratios(group.decayed, group.layers, 0.001), momentum]


def _lion(group: Group) -> list[optax.GradientTransformation]:
    """Chen et al., arXiv:2302.06675: b2 of 0.99, and a tenth of Adam's rates."""
    return [
        optax.scale_by_lion(group.settings.b1, group.settings.b2),
        optax.add_decayed_weights(group.decay, group.decayed),
    ]


def _lamb(group: Group) -> list[optax.GradientTransformation]:
    """You et al., arXiv:1904.00962; as in timm, what does not decay is not adapted."""
    return [*_adamw(group), trust_ratios(group.decayed, group.layers, 1.0)]


# optim.name -> from a group of parameters the steps that make it.
OPTIMIZERS = {
    "adamw": _adamw,
    "sgd": _sgd,
    "lars": _lars,
    "lion": _lion,
    "lamb": _lamb,
    "adafactor": matrices.adafactor,
    "muon": matrices.muon,
}


def _steps(group: Group) -> list[optax.GradientTransformation]:
    """From (clipped) gradients to updates."""
    kind = lookup(OPTIMIZERS, group.settings.name, f"{group.where}.name")
    steps = kind(group)
    if not all(np.all(scale == 1) for scale in jax.tree.leaves(group.scales)):
        steps.append(
            optax.stateless(
                lambda updates, _: jax.tree.map(jnp.multiply, updates, group.scales)
            )
        )
    return [*steps, optax.scale_by_learning_rate(group.rate)]


class Optimizer(NamedTuple):
    """How a run's parameters move.

    Attributes:
      tx: makes updates of gradients.
      scales: the factor on each parameter's learning rate, 0 where it is frozen.
      groups: name -> parameters with settings of their own; all others are REST.
      ema_share: of new parameters in their running average, 1 - `optim.ema_decay`; may
        follow a schedule.
    """

    tx: optax.GradientTransformation
    scales: Tree
    groups: dict[str, Group]
    ema_share: float | Rate = 1.0

    def average(self, ema: Tree, params: Tree, step: jax.Array) -> Tree:
        """The running average after a step, which has made `params`."""
        share = self.ema_share(step) if callable(self.ema_share) else self.ema_share
        # So written, the average of a parameter that rests is that parameter.
        return jax.tree.map(lambda old, new: old + share * (new - old), ema, params)

    @property
    def rate(self) -> Rate:
        """The learning rate, but of groups that have their own."""
        return self.groups[groups_lib.REST].rate

    def scheduled(self, step: jax.Array) -> dict[str, jax.Array]:
        """What schedules have come to at a step: "learning_rate", and by group."""
        told = {}
        for name, group in self.groups.items():
            end = "" if name == groups_lib.REST else f"/{name}"
            told[f"learning_rate{end}"] = group.rate(step)
            if callable(group.decay):
                told[f"weight_decay{end}"] = group.decay(step)
        if callable(self.ema_share):
            told["ema_decay"] = 1 - self.ema_share(step)
        return told


def make(config: ConfigDict, plan: Plan, params: Tree, layers: Tree) -> Optimizer:
    """The optimizer of a run.

    Args:
      config: the section `optim`.
      params: unboxed parameters or their shapes; decides masks and factors.
      layers: the number of each one's layer, see `Task.layers`.

    Raises:
      ValueError: no such optimizer, or parameters that do not fit the settings.
    """
    scales = layers_lib.scales(config, params, layers)
    resting = layers_lib.resting(params, config.train)
    labels = groups_lib.labels(config.groups, params, resting)
    groups = groups_lib.make(
        config, plan, labels, scales=scales, decayed=decay_mask(params), layers=layers
    )
    moves = {name: _steps(group) for name, group in groups.items()}
    # Before the groups part: the norm is that of all gradients together.
    steps = [clip(config.clip_norm)] if config.clip_norm else []
    if config.groups or config.train:
        chains = {name: optax.chain(*move) for name, move in moves.items()}
        chains[groups_lib.STILL] = optax.set_to_zero()
        steps.append(optax.partition(chains, labels))
    else:  # flat, as the states of all runs have been
        steps += moves[groups_lib.REST]
    return Optimizer(optax.chain(*steps), scales, groups, _ema_share(config, plan))


def _ema_share(config: ConfigDict, plan: Plan) -> float | Rate:
    first, last = config.ema_decay, config.ema_decay_end
    if last is not None and not first:
        raise ValueError(
            f"optim.ema_decay_end={last:g} is where optim.ema_decay goes, which is 0: "
            "there is no average; set both, or neither"
        )
    # Not 1 - decay of a step: near 1, float32 would round the share away.
    return over_the_run(plan, 1 - first, None if last is None else 1 - last)
