"""Fine-tuning an encoder as an image classifier, or training one from scratch."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from beit_jax.ranges import Classes, Part, Weight
from beit_jax.tasks import on_device, scores
from beit_jax.tasks.base import Array, Batch, Context, Sums, Tree
from beit_jax.tasks.supervised import ClassWeights, Supervised, loss_of
from beit_jax.tasks.supervised import under_heat as under_heat
from beit_jax.tasks.viewing import mean_of_logs


class Classify(Supervised):
    """Softmax cross-entropy with label smoothing, or another loss of one label.

    Args:
      classes: C; labels are in [0, C).
      pool: "mean" of the patches (BEiT's default) or "cls".
      label_smoothing: share of the probability spread over all classes.
      head_init_scale: factor on the head's initial weights.
      head: name (of HEADS, "linear" unless said) and settings; the head is given
        `classes` and, as far as it takes them, `pool`, `init_scale`, `norm_eps` and
        `dtype`.
      loss: name ("cross_entropy" unless said, "binary", "focal") and settings, see
        losses.py. A loss of each class by itself is evaluated by softmax, too: it
        tells how likely each class is, given that it is exactly one.
      class_weights: how much an example of each class counts in the loss, a number for
        each; "balanced": examples / (C * examples of the class), by those that are
        trained on. A mixed image counts as its two parts do.
      tta: views that an evaluation or a prediction averages, of VIEWS in viewing.py.
      lora: rank and alpha of additions to attention's kernels, see models/lora.py;
        with optim.train="lora,head,fc_norm" they and the head alone are trained.

    From scratch the encoder starts as in the official fine-tuning code, which differs
    from pre-training: `config.model.init_as`.
    """

    usual = {"head": "linear", "loss": "cross_entropy"}
    headline = ("loss", "top1", "top5")
    outputs = ("labels",)

    def __init__(
        self,
        config: ConfigDict,
        classes: Classes,
        pool: str = "mean",
        label_smoothing: Part = 0.1,
        head_init_scale: Weight = 0.001,
        head: Mapping[str, Any] = (),
        loss: Mapping[str, Any] = (),
        class_weights: tuple | str = (),
        tta: str = "",
        lora: Mapping[str, Any] = (),
    ):
        label = {"label": jax.ShapeDtypeStruct((), jnp.int32)}
        self._build(config, classes, label, pool, head, head_init_scale, tta, lora)
        self.classes, self._smoothing = classes, label_smoothing
        self._loss = loss_of(
            loss, self.usual["loss"], ("cross_entropy", "binary", "focal")
        )
        self._weights = ClassWeights(class_weights, classes, _balanced)

    def eval_step(self, params: Tree, batch: Batch, ctx: Context) -> dict[str, Array]:
        """Rows (B,), of which tasks/scores.py makes metrics; smooths no labels."""
        logs = self._log_probability(params, batch, ctx)
        best, classes = jax.lax.top_k(logs, min(5, self.classes))
        label = batch["label"]
        return {
            "label": label,
            "best": classes,
            "nll": -jnp.take_along_axis(logs, label[:, None], axis=1)[:, 0],
            "confidence": jnp.exp(best[:, 0]),
            "weight": batch["weight"],
        }

    def predict(
        self, what: str, params: Tree, batch: Batch, ctx: Context
    ) -> dict[str, Array]:
        return {"log_probability": self._log_probability(params, batch, ctx)}

    def _log_probability(self, params: Tree, batch: Batch, ctx: Context) -> Array:
        """(B, C) float32, of the views' mean probability"""
        logits = self._plain(params, batch, ctx)
        return mean_of_logs([jax.nn.log_softmax(each) for each in logits])

    def _sums(self, params: Tree, batch: Batch, ctx: Context) -> tuple[Sums, Tree]:
        wanted = on_device.soft_targets(batch["label"], self.classes, self._smoothing)
        logits, wanted, weight, model_state = self._augmented(
            params, batch, ctx, wanted
        )
        loss = self._loss(logits, wanted)
        _, best = jax.lax.top_k(logits, min(5, self.classes))
        hit = best == jnp.argmax(wanted, axis=1)[:, None]
        count = jnp.sum(weight)
        found = {"top1": hit[:, 0], "top5": hit.any(1)}
        sums = {k: (jnp.sum(v * weight), count) for k, v in found.items()}
        if self._weights.factors is not None:
            weight = weight * self._by_class(batch)
        return {"loss": (jnp.sum(loss * weight), jnp.sum(weight)), **sums}, model_state

    def _by_class(self, batch: Batch) -> Array:
        """(B,) float32, how much each example counts for its class."""
        own = jnp.asarray(self._weights.factors)[batch["label"]]
        return on_device.blend(own, batch["mix"][:, 0]) if "mix" in batch else own

    def scorer(self, info: Any) -> scores.ClassScorer:
        return scores.ClassScorer(self.classes, info.class_names)


def _balanced(counts: np.ndarray, examples: int) -> np.ndarray:
    """As scikit-learn's `compute_class_weight`; 0 for a class without examples."""
    least = np.maximum(counts, 1)
    return np.where(counts > 0, examples / (len(counts) * least), 0)
