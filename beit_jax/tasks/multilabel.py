"""Images that may have several labels, or none."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from beit_jax.ranges import Length, Part, Weight
from beit_jax.tasks import label_scores
from beit_jax.tasks.base import Array, Batch, Context, Sums, Tree
from beit_jax.tasks.supervised import ClassWeights, Supervised, loss_of
from beit_jax.tasks.viewing import mean_of_logs


class Multilabel(Supervised):
    """Each class by itself: whether an image has it.

    Args:
      classes: C, how many there are.
      pool, head_init_scale, head, tta, lora: as of `Classify`.
      label_smoothing: what is wanted goes by so much towards one half.
      loss: name ("binary" unless said, or "focal") and settings, see losses.py.
      class_weights: how much more an image that has a class counts than one that has
        not, a number for each (PyTorch's `pos_weight`); "balanced": images without it /
        images with it, by those that are trained on.
    """

    usual = {"head": "linear", "loss": "binary"}
    headline = ("loss", "map")
    outputs = ("labels",)

    def __init__(
        self,
        config: ConfigDict,
        classes: Length,
        pool: str = "mean",
        label_smoothing: Part = 0.0,
        head_init_scale: Weight = 0.001,
        head: Mapping[str, Any] = (),
        loss: Mapping[str, Any] = (),
        class_weights: tuple | str = (),
        tta: str = "",
        lora: Mapping[str, Any] = (),
    ):
        labels = {"labels": jax.ShapeDtypeStruct((classes,), jnp.float32)}
        self._build(config, classes, labels, pool, head, head_init_scale, tta, lora)
        self.classes, self._smoothing = classes, label_smoothing
        self._loss = loss_of(loss, self.usual["loss"], ("binary", "focal"))
        self._weights = ClassWeights(class_weights, classes, _balanced)

    def eval_step(self, params: Tree, batch: Batch, ctx: Context) -> dict[str, Array]:
        """Rows, of which tasks/label_scores.py makes metrics; plain cross-entropy."""
        logits = self._plain(params, batch, ctx)
        yes = mean_of_logs([jax.nn.log_sigmoid(each) for each in logits])
        no = mean_of_logs([jax.nn.log_sigmoid(-each) for each in logits])
        has = batch["labels"] > 0
        return {
            "label": has,
            "score": jnp.exp(yes),
            "loss": -jnp.where(has, yes, no).mean(axis=1),
            "weight": batch["weight"],
        }

    def predict(
        self, what: str, params: Tree, batch: Batch, ctx: Context
    ) -> dict[str, Array]:
        """Of each class by itself: they do not add up to 1."""
        logs = map(jax.nn.log_sigmoid, self._plain(params, batch, ctx))
        return {"log_probability": mean_of_logs([*logs])}

    def _sums(self, params: Tree, batch: Batch, ctx: Context) -> tuple[Sums, Tree]:
        smoothing = self._smoothing
        wanted = batch["labels"] * (1 - smoothing) + smoothing / 2
        logits, wanted, weight, model_state = self._augmented(
            params, batch, ctx, wanted
        )
        positive = 1.0 if self._weights.factors is None else self._weights.factors
        loss, count = self._loss(logits, wanted, positive), jnp.sum(weight)
        return {"loss": (jnp.sum(loss * weight), count)}, model_state

    def scorer(self, info: Any) -> label_scores.LabelScorer:
        return label_scores.LabelScorer(self.classes, info.class_names)


def _balanced(counts: np.ndarray, examples: int) -> np.ndarray:
    """1 for a class that no image has, or every one."""
    without = np.maximum(examples - counts, 0)
    some = (counts > 0) & (without > 0)
    return np.divide(without, counts, out=np.ones(len(counts)), where=some)
