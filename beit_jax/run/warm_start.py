"""A run that begins with the weights of another."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from beit_jax.checkpoints import names
from beit_jax.checkpoints.read import restore
from beit_jax.models.patches import size_and_grid
from beit_jax.run import card as card_lib
from beit_jax.run.state import TrainState


def warm_start(
    config: ConfigDict, task, fresh: TrainState, class_names: Sequence[str] = ()
) -> tuple[TrainState, str, list[str]]:
    """A fresh state with the weights of `config.init_from`, a report, and warnings.

    Weights are the parameters and what else a model carries: the codes of a tokenizer.

    Args:
      class_names: of the data.
    """
    other = restore(config.init_from)
    given = task.adapt(other.params, other.config["model"]) | other.model_state
    have, report = names.merge(
        fresh.params | fresh.model_state, given, config.init_fresh, other.path
    )
    params = {name: have[name] for name in fresh.params}
    model_state = {name: have[name] for name in fresh.model_state}
    ema = None if fresh.ema is None else jax.tree.map(jnp.copy, params)
    state = fresh.replace(params=params, model_state=model_state, ema=ema)
    report += resized(task, other.config["model"])
    doubts = card_lib.doubts(other, config.model)
    if "head" in other.params and "head" not in config.init_fresh.split(","):
        doubts += card_lib.doubts_of_head(other, class_names)
    return state, report, doubts


def resized(task, model: Mapping[str, Any]) -> str:
    """What follows a report where position tables were made for another grid."""
    if task.encoder is None or "image_size" not in model:
        return ""
    (_, old), new = size_and_grid(model), task.encoder.grid
    if tuple(old) == tuple(new):
        return ""
    return f"; positions resized from {old[0]}x{old[1]} to {new[0]}x{new[1]} patches"
