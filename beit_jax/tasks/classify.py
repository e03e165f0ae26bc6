"""Fine-tuning an encoder as an image classifier, or training one from scratch."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from beit_jax.heads.linear import POOLS
from beit_jax.ranges import Classes, Part, Weight
from beit_jax.tasks import encoders, on_device, scores
from beit_jax.tasks.base import Array, Aux, Batch, Context, Sums, Tree


class Classify(encoders.EncoderTask):
    """Softmax cross-entropy with label smoothing.

    Args:
      classes: C; labels are in [0, C).
      pool: "mean" of the patches (BEiT's default) or "cls".
      label_smoothing: share of the probability spread over all classes.
      head_init_scale: factor on the head's initial weights.
      head: name (of HEADS, "linear" unless said) and settings; the head is given
        `classes` and, as far as it takes them, `pool`, `init_scale`, `norm_eps` and
        `dtype`.

    From scratch the encoder starts as in the official fine-tuning code, which differs
    from pre-training: `config.model.init_as`.
    """

    headline = ("loss", "top1", "top5")
    columns = {
        "attention": ("image", "seen by [CLS], last block: black 0, red, white most")
    }
    outputs = ("labels",)

    def __init__(
        self,
        config: ConfigDict,
        classes: Classes,
        pool: str = "mean",
        label_smoothing: Part = 0.1,
        head_init_scale: Weight = 0.001,
        head: Mapping[str, Any] = (),
    ):
        if pool not in POOLS or classes < 2:
            raise ValueError(
                f"config.task: pool={pool!r} must be one of {POOLS}, "
                f"classes={classes} at least 2"
            )
        encoder, size, self._space = encoders.build(config, final_norm=pool == "cls")
        self.network = encoders.with_head(
            encoder,
            {"name": "linear", **dict(head)},
            classes=classes,
            pool=pool,
            init_scale=head_init_scale,
        )
        self.classes, self.pool = classes, pool
        self.train_spec = {
            "image": jax.ShapeDtypeStruct((*size, 3), jnp.uint8),
            "label": jax.ShapeDtypeStruct((), jnp.int32),
            **on_device.example_spec(config, labels=True),
        }
        self._smoothing = label_smoothing

    def train_loss(self, params: Tree, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        sums, model_state = self._sums(params, batch, ctx)
        loss, weight = sums["loss"]
        return loss / jnp.maximum(weight, 1.0), Aux(sums, model_state)

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

    def pictures(self, params: Tree, batch: Batch, ctx: Context) -> dict[str, Array]:
        """image | where [CLS] looks in the last block, all heads together"""
        image = batch["image"]
        maps = encoders.attention_maps(
            self.encoder, params["encoder"], self._space.to_float(image)
        )
        seen = under_heat(image, maps["cls"][:, -1].mean(axis=1))
        return {"attention": jnp.concatenate([image, seen], axis=2)}

    def _log_probability(self, params: Tree, batch: Batch, ctx: Context) -> Array:
        """(B, C) float32"""
        image = self._space.to_float(batch["image"])
        logits, _ = self._apply(params, ctx, image, train=False)
        return jax.nn.log_softmax(logits)

    def _sums(self, params: Tree, batch: Batch, ctx: Context) -> tuple[Sums, Tree]:
        image = self._space.to_float(on_device.pixels(batch, "image"))
        wanted = on_device.soft_targets(batch["label"], self.classes, self._smoothing)
        weight = batch["weight"]
        if "erase" in batch:
            image = on_device.erase(image, batch["erase"], batch["erase_seed"])
        if "mix" in batch:
            image, wanted = on_device.mix(image, wanted, batch["mix"])
            weight = weight * weight[::-1]  # a skipped partner spoils the row
        logits, model_state = self._apply(params, ctx, image, train=True)
        loss = optax.softmax_cross_entropy(logits, wanted)
        _, best = jax.lax.top_k(logits, min(5, self.classes))
        hit = best == jnp.argmax(wanted, axis=1)[:, None]
        sums = {"loss": loss, "top1": hit[:, 0], "top5": hit.any(1)}
        count = jnp.sum(weight)
        return {k: (jnp.sum(v * weight), count) for k, v in sums.items()}, model_state

    def scorer(self, info: Any) -> scores.ClassScorer:
        return scores.ClassScorer(self.classes, info.class_names)


def under_heat(image: Array, heat: Array) -> Array:
    """(B, H, W, 3) uint8 in grey; (B, h, w) over it, black to red, yellow, white."""
    heat = heat / heat.max(axis=(1, 2), keepdims=True)
    heat = jax.image.resize(heat, image.shape[:3], "linear")[..., None]
    colour = 255 * jnp.clip(3 * heat - jnp.arange(3), 0, 1)
    grey = image.mean(axis=3, keepdims=True)
    return (0.3 * grey + 0.7 * colour).astype(jnp.uint8)
