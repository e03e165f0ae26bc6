"""Numbers of images: an age, a weight, a price."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from beit_jax import lookup
from beit_jax.ranges import Weight
from beit_jax.tasks import number_scores
from beit_jax.tasks.base import Array, Batch, Context, Sums, Tree
from beit_jax.tasks.supervised import Supervised, loss_of


class Regress(Supervised):
    """One or several numbers an image.

    Args:
      targets: their names, as the source has them.
      pool, head_init_scale, head, tta, lora: as of `Classify`.
      loss: name ("mse" unless said, "l1", "smooth_l1") and settings, see losses.py.
      mean, std: of each target, a number each; the head gives (number - mean) / std,
        of which the loss is. Without: 0 and 1. Metrics are of the numbers themselves.
    """

    usual = {"head": "linear", "loss": "mse"}
    headline = ("loss", "mae", "r2")
    outputs = ("numbers",)

    def __init__(
        self,
        config: ConfigDict,
        targets: tuple,
        pool: str = "mean",
        head_init_scale: Weight = 0.001,
        head: Mapping[str, Any] = (),
        loss: Mapping[str, Any] = (),
        mean: tuple = (),
        std: tuple = (),
        tta: str = "",
        lora: Mapping[str, Any] = (),
    ):
        self.targets, count = _names(targets), len(targets)
        numbers = {"numbers": jax.ShapeDtypeStruct((count,), jnp.float32)}
        self._build(config, count, numbers, pool, head, head_init_scale, tta, lora)
        self._loss = loss_of(loss, self.usual["loss"], ("mse", "l1", "smooth_l1"))
        self._mean = _numbers("mean", mean or count * (0.0,), count)
        self._std = _numbers("std", std or count * (1.0,), count)
        if (self._std <= 0).any():
            raise ValueError(f"config.task: std={std} must be above 0")

    def eval_step(self, params: Tree, batch: Batch, ctx: Context) -> dict[str, Array]:
        """Rows, of which tasks/number_scores.py makes metrics."""
        found = self._mean_of_views(params, batch, ctx)
        return {
            "wanted": batch["numbers"],
            "found": found * self._std + self._mean,
            "loss": self._loss(found, self._scaled(batch)),
            "weight": batch["weight"],
        }

    def predict(
        self, what: str, params: Tree, batch: Batch, ctx: Context
    ) -> dict[str, Array]:
        found = self._mean_of_views(params, batch, ctx)
        return {"numbers": found * self._std + self._mean}

    def _mean_of_views(self, params: Tree, batch: Batch, ctx: Context) -> Array:
        return jnp.stack(self._plain(params, batch, ctx)).mean(axis=0)

    def _scaled(self, batch: Batch) -> Array:
        return (batch["numbers"] - self._mean) / self._std

    def _sums(self, params: Tree, batch: Batch, ctx: Context) -> tuple[Sums, Tree]:
        found, wanted, weight, model_state = self._augmented(
            params, batch, ctx, self._scaled(batch)
        )
        error = jnp.mean(jnp.abs(found - wanted) * self._std, axis=1)
        sums = {"loss": self._loss(found, wanted), "mae": error}
        count = jnp.sum(weight)
        return {k: (jnp.sum(v * weight), count) for k, v in sums.items()}, model_state

    def scorer(self, info: Any) -> number_scores.NumberScorer:
        return number_scores.NumberScorer(self.targets)


def _names(targets: tuple) -> tuple[str, ...]:
    if not targets or not all(isinstance(name, str) and name for name in targets):
        raise ValueError(f"config.task: targets={targets} must be names of numbers")
    if len(set(targets)) < len(targets):
        raise ValueError(f"config.task: targets={targets} must differ")
    return tuple(targets)


def _numbers(what: str, given: tuple, count: int) -> np.ndarray:
    fits = len(given) == count and all(lookup.has_type(x, float) for x in given)
    if not fits or not np.isfinite(given).all():
        raise ValueError(
            f"config.task: {what}={given} must be a number for each of {count} targets"
        )
    return np.array(given, np.float32)
