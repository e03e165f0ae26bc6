"""Fine-tuning an encoder as an image classifier, or training one from scratch."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from beit_jax.heads.linear import POOLS, LinearHead
from beit_jax.tasks import augment, base, encoders
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
        self.classes = classes
        self.example_spec = {
            "image": jax.ShapeDtypeStruct((*size, 3), jnp.uint8),
            "label": jax.ShapeDtypeStruct((), jnp.int32),
            **augment.example_spec(config, labels=True),
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

    def eval_step(self, params: Tree, batch: Batch, ctx: Context) -> Sums:
        return self._sums(params, batch, None)

    def _sums(self, params: Tree, batch: Batch, rngs) -> Sums:
        image = self._space.to_float(augment.pixels(batch, "image"))
        smoothing = 0.0 if rngs is None else self._smoothing
        wanted = augment.soft_targets(batch["label"], self.head.classes, smoothing)
        weight = batch["weight"]
        if "erase" in batch:
            image = augment.erase(image, batch["erase"], batch["erase_seed"])
        if "mix" in batch:
            image, wanted = augment.mix(image, wanted, batch["mix"])
            weight = weight * weight[::-1]  # a skipped partner spoils the row
        features = self.encoder.apply(
            {"params": params["encoder"]}, image, train=rngs is not None, rngs=rngs
        )
        logits = self.head.apply({"params": params}, features.tokens)
        loss = optax.softmax_cross_entropy(logits, wanted)
        _, best = jax.lax.top_k(logits, min(5, self.head.classes))
        hit = best == jnp.argmax(wanted, axis=1)[:, None]
        sums = {"loss": loss, "top1": hit[:, 0], "top5": hit.any(1)}
        return {k: (jnp.sum(v * weight), jnp.sum(weight)) for k, v in sums.items()}
