"""Fine-tuning an encoder as an image classifier, or training one from scratch."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from beit_jax.heads.linear import POOLS, LinearHead
from beit_jax.tasks import base, encoders, on_device, scores
from beit_jax.tasks.base import Array, Aux, Batch, Context, Sums, Tree


class Classify(base.Defaults):
    """Softmax cross-entropy with label smoothing.

    Args:
      classes: C; labels are in [0, C).
      pool: "mean" of the patches (BEiT's default) or "cls".
      label_smoothing: share of the probability spread over all classes.
      head_init_scale: factor on the head's initial weights.

    From scratch the encoder starts as in the official fine-tuning code, which differs
    from pre-training: `config.model.init_as`.
    """

    headline = ("loss", "top1", "top5")
    outputs = ("labels",)

    def __init__(
        self,
        config: ConfigDict,
        classes: int,
        pool: str = "mean",
        label_smoothing: float = 0.1,
        head_init_scale: float = 0.001,
    ):
        if pool not in POOLS or classes < 2:
            raise ValueError(
                f"config.task: pool={pool!r} must be one of {POOLS}, "
                f"classes={classes} at least 2"
            )
        self.encoder, size, self._space = encoders.build(
            config, final_norm=pool == "cls"
        )
        self.head = LinearHead(
            classes,
            pool,
            head_init_scale,
            self.encoder.norm_eps,
            jnp.dtype(config.dtype),
        )
        self.classes, self.pool = classes, pool
        self.train_spec = {
            "image": jax.ShapeDtypeStruct((*size, 3), jnp.uint8),
            "label": jax.ShapeDtypeStruct((), jnp.int32),
            **on_device.example_spec(config, labels=True),
        }
        self._smoothing = label_smoothing

    def init(self, rng: Array, batch: Batch) -> Tree:
        return {
            "params": encoders.init(
                rng, self.encoder, self.head, self._space.to_float(batch["image"])
            ),
            "model_state": {},
        }

    def adapt(self, params: Tree, model: Mapping[str, Any]) -> Tree:
        return encoders.adapt(params, model, self.encoder)

    def train_loss(self, params: Tree, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        sums = self._sums(params, batch, {"drop_path": ctx.rng})
        loss, weight = sums["loss"]
        return loss / jnp.maximum(weight, 1.0), Aux(sums, ctx.model_state)

    def eval_step(self, params: Tree, batch: Batch, ctx: Context) -> dict[str, Array]:
        """Rows (B,), of which tasks/scores.py makes metrics; smooths no labels."""
        image = self._space.to_float(batch["image"])
        logs = jax.nn.log_softmax(self._logits(params, image, None))
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
        logits = self._logits(params, self._space.to_float(batch["image"]), None)
        return {"log_probability": jax.nn.log_softmax(logits)}

    def pictures(self, params: Tree, batch: Batch, ctx: Context) -> dict[str, Array]:
        """image | where [CLS] looks in the last block, all heads together"""
        image = batch["image"]
        maps = encoders.attention_maps(
            self.encoder, params["encoder"], self._space.to_float(image)
        )
        seen = under_heat(image, maps["cls"][:, -1].mean(axis=1))
        return {"attention": jnp.concatenate([image, seen], axis=2)}

    def _logits(self, params: Tree, image: Array, rngs) -> Array:
        """(B, H, W, 3) float -> (B, C) float32; trains where there are `rngs`."""
        features = self.encoder.apply(
            {"params": params["encoder"]}, image, train=rngs is not None, rngs=rngs
        )
        return self.head.apply({"params": params}, features.tokens)

    def _sums(self, params: Tree, batch: Batch, rngs) -> Sums:
        image = self._space.to_float(on_device.pixels(batch, "image"))
        wanted = on_device.soft_targets(batch["label"], self.classes, self._smoothing)
        weight = batch["weight"]
        if "erase" in batch:
            image = on_device.erase(image, batch["erase"], batch["erase_seed"])
        if "mix" in batch:
            image, wanted = on_device.mix(image, wanted, batch["mix"])
            weight = weight * weight[::-1]  # a skipped partner spoils the row
        logits = self._logits(params, image, rngs)
        loss = optax.softmax_cross_entropy(logits, wanted)
        _, best = jax.lax.top_k(logits, min(5, self.classes))
        hit = best == jnp.argmax(wanted, axis=1)[:, None]
        sums = {"loss": loss, "top1": hit[:, 0], "top5": hit.any(1)}
        return {k: (jnp.sum(v * weight), jnp.sum(weight)) for k, v in sums.items()}

    def scorer(self, info: Any) -> scores.ClassScorer:
        return scores.ClassScorer(self.classes, info.class_names)


def under_heat(image: Array, heat: Array) -> Array:
    """(B, H, W, 3) uint8 in grey; (B, h, w) over it, black to red, yellow, white."""
    heat = heat / heat.max(axis=(1, 2), keepdims=True)
    heat = jax.image.resize(heat, image.shape[:3], "linear")[..., None]
    colour = 255 * jnp.clip(3 * heat - jnp.arange(3), 0, 1)
    grey = image.mean(axis=3, keepdims=True)
    return (0.3 * grey + 0.7 * colour).astype(jnp.uint8)
