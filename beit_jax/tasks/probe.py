"""Linear probes: how much of the classes every block of a frozen encoder tells."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from beit_jax.checkpoints.frozen import Frozen, Untrained
from beit_jax.checkpoints.steps import Restored
from beit_jax.ranges import Classes
from beit_jax.sharding import partitioned
from beit_jax.targets.tokens import UNTRAINED
from beit_jax.tasks import base, encoders, on_device
from beit_jax.tasks.base import Array, Aux, Batch, Context, Sums, Tree
from beit_jax.tasks.scorers import Means, Numbers

NORMS = ("none", "batch")
HAVE_ENCODERS = ("pretrain", "classify", "multilabel", "regress")  # tasks
MOMENTUM, EPSILON = 0.1, 1e-6  # of batch normalisation in MAE's linear probe


def statistics(features: Array, weight: Array) -> Tree:
    """Mean and (biased) variance (L, F) of the examples (L, B, F) that count.

    Of the global batch, however it is sharded.
    """
    share = (weight / jnp.maximum(jnp.sum(weight), 1.0))[:, None]
    mean = jnp.sum(share * features, axis=1)
    var = jnp.sum(share * jnp.square(features - mean[:, None]), axis=1)
    return {"mean": mean, "var": var}


def follow(running: Tree, now: Tree, count: Array) -> Tree:
    """Running statistics after a batch of `count` examples, as PyTorch moves them.

    They keep the unbiased variance, of which a single example tells nothing.
    """
    unbiased = now | {"var": now["var"] * count / jnp.maximum(count - 1, 1.0)}
    share = jnp.where(count > 1, MOMENTUM, 0.0)
    return jax.tree.map(lambda old, new: old + share * (new - old), running, unbiased)


def normalise(features: Array, by: Tree) -> Array:
    """(L, B, F) -> the same with `statistics` taken out; nothing is learned here."""
    scale = jax.lax.rsqrt(by["var"] + EPSILON)
    return (features - by["mean"][:, None]) * scale[:, None]


class Probe(base.Defaults):
    """One linear classifier for each block of a frozen encoder, all trained at once.

    The loss is the sum of their cross-entropies, so that each learns as if alone (with
    optim.clip_norm=0: clipping looks at all). As in beit/run_linear_eval.py, but the
    schedule moves by steps and biases do not decay. With features="cls", norm="batch"
    and optim.name="lars" each is MAE's probe.

    Blocks are counted from 0; "top1" is that of the best one, which these very
    examples choose: compare encoders by it, and do not expect it of new images.

    Args:
      checkpoint: with an encoder (a run's work directory, another project's file: see
        checkpoints/read.py), which gives `config.model` too: what is said there must
        agree, but for `image_size`.
        "untrained": random weights of `config.model` from a fixed seed, the control.
      classes: C; labels are in [0, C).
      features: of an image, see `encoders.block_features`.
      norm: "batch" normalises them as BatchNorm without parameters; when gradients are
        accumulated, by the statistics of each part.
    """

    headline = ("loss", "top1", "best_block")

    def __init__(
        self,
        config: ConfigDict,
        checkpoint: str,
        classes: Classes,
        features: str = "concat",
        norm: str = "none",
    ):
        if norm not in NORMS or features not in encoders.FEATURES or classes < 2:
            raise ValueError(
                f"config.task: features={features!r} must be one of "
                f"{encoders.FEATURES}, norm={norm!r} of {NORMS}, classes={classes} at "
                "least 2"
            )
        self.classes, self.pool, self._norm = classes, features, norm
        model, source = config.model, "pretrain"
        if checkpoint == UNTRAINED:
            network = Untrained(self._untrained)
        else:
            network = Frozen(checkpoint, self._encoder_of)
            model, source = _trained(network, config.model)
        self.frozen = {"encoder": network}
        self.encoder, size, self._space = encoders.build(
            ConfigDict({"model": model, "dtype": config.dtype}),
            mask_token=source == "pretrain",
            final_norm=False,
        )
        if network.path:  # a probe hides nothing, and MAE's encoder has no such token
            self.encoder = self.encoder.clone(mask_token=False)
        self.train_spec = {
            "image": jax.ShapeDtypeStruct((*size, 3), jnp.uint8),
            "label": jax.ShapeDtypeStruct((), jnp.int32),
            **on_device.example_spec(config, labels=False),
        }

    def init(self, rng: Array, batch: Batch) -> Tree:
        blocks = self.encoder.depth
        width = self.encoder.dim * (2 if self.pool == "concat" else 1)
        kernel = partitioned(jax.nn.initializers.normal(0.01), "layers", "embed", None)
        bias = partitioned(jax.nn.initializers.zeros, "layers", None)
        classifiers = {
            "kernel": kernel(rng, (blocks, width, self.classes)),
            "bias": bias(rng, (blocks, self.classes)),
        }
        start = {"mean": jnp.zeros((blocks, width)), "var": jnp.ones((blocks, width))}
        return {
            "params": {"blocks": classifiers},
            "model_state": {"batch_stats": start} if self._norm == "batch" else {},
        }

    def layers(self, params: Tree) -> Tree:
        """Each block's classifier is one."""
        number = np.arange(1, self.encoder.depth + 1)
        return jax.tree.map(
            lambda leaf: number.reshape(-1, *[1] * (leaf.ndim - 1)), params
        )

    def _encoder_of(self, saved: Restored) -> Tree:
        """The encoder's parameters, its positions for our images."""
        model = saved.config["model"]
        return self.encoder.adapt(saved.params["encoder"], model)

    def _untrained(self) -> Tree:
        image = jnp.zeros((1, *self.train_spec["image"].shape))
        return nn.unbox(self.encoder.init(jax.random.key(0), image))["params"]

    def train_loss(self, params: Tree, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        features, state = self._features(batch, ctx), ctx.model_state
        if state:
            now = statistics(features, batch["weight"])
            count = jnp.sum(batch["weight"])
            state = {"batch_stats": follow(state["batch_stats"], now, count)}
            features = normalise(features, now)
        sums = self._sums(params, features, batch)
        loss, weight = sums["loss"]
        return loss / jnp.maximum(weight, 1.0), Aux(sums, state)

    def eval_step(self, params: Tree, batch: Batch, ctx: Context) -> Sums:
        features = self._features(batch, ctx)
        if ctx.model_state:
            features = normalise(features, ctx.model_state["batch_stats"])
        return self._sums(params, features, batch)

    def _features(self, batch: Batch, ctx: Context) -> Array:
        """(L, B, F) float32, of frozen weights only: no gradient goes this way."""
        image = self._space.to_float(on_device.pixels(batch, "image"))
        params = ctx.frozen["encoder"]
        return encoders.block_features(self.encoder, params, image, self.pool)

    def _sums(self, params: Tree, features: Array, batch: Batch) -> Sums:
        """Sums over the examples of (L, B, F) features; "loss" over the blocks too."""
        linear, weight = params["blocks"], batch["weight"]
        # What is compared are encoders, and not how a device rounds.
        logits = jnp.einsum(
            "lbf,lfc->lbc", features, linear["kernel"], precision="highest"
        )
        logits += linear["bias"][:, None]
        label = jnp.broadcast_to(batch["label"], logits.shape[:2])
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        hit = jnp.argmax(logits, axis=-1) == label
        count = jnp.sum(weight)
        return {
            "loss": (jnp.sum(nats @ weight), count),
            "top1_by_block": (hit @ weight, count),
        }

    def train_scorer(self) -> Means:
        return Means(_of_blocks)


def _of_blocks(means: Mapping, weights: Mapping) -> Numbers:
    """Top-1 of every block, which block is the best, and their mean loss."""
    top1 = means["top1_by_block"]
    best = int(np.argmax(top1))
    each = {f"top1_block_{i:02d}": float(value) for i, value in enumerate(top1)}
    # Their sum is what is minimised, and would look like a loss far above chance.
    loss = float(means["loss"])
    told = {"loss": loss / len(top1), "sum_of_losses": loss, "top1": float(top1[best])}
    return told | {"best_block": float(best)} | each


def _trained(network: Frozen, asked: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Settings of a network's model with our image size, and its task."""
    theirs = network.config
    source = theirs["task"]["name"]
    if source not in HAVE_ENCODERS:
        raise ValueError(
            f"{network.path} is of task {source!r}; a probe needs one of "
            f"{HAVE_ENCODERS}"
        )
    model, ours = {"pixels": "half"} | theirs["model"], {"pixels": "half", **asked}
    wrong = [
        f"model.{key}={model.get(key)!r} and not {value!r}"
        for key, value in ours.items()
        if key != "image_size" and value != model.get(key)
    ]
    if wrong:
        raise ValueError(
            f"the encoder to probe is that of {network.path}, where "
            f"{', '.join(wrong)}; say the same in config.model, or leave it out"
        )
    return model | ours, source
