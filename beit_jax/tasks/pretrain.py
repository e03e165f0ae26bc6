"""Masked image modelling: predict what the hidden patches are (BEiT, eq. 3)."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from beit_jax import lookup
from beit_jax.heads.network import Network
from beit_jax.masks import counted
from beit_jax.targets import TARGETS
from beit_jax.tasks import encoders, on_device
from beit_jax.tasks.base import Array, Aux, Batch, Context, Sums, Tree
from beit_jax.tasks.scorers import Means, Numbers

_EACH = "loss_"  # and the name of one of several predictions
PREDICT = ("masked", "all")
SETTLED = 0.2  # of a run: by then it should predict better than without looking
ENOUGH = 10  # tokens for each of the vocabulary tell how frequent each is


def masked_slots(mask: Array, slots: int) -> tuple[Array, Array]:
    """Where the masked patches are, in a number of slots that never changes.

    Args:
      mask: (B, N) bool.
      slots: K, at least the largest number of masked patches in an image.

    Returns:
      index: (B, K) int32, masked patches first, in order; then unmasked ones.
      used: (B, K) float32, 1 for a masked patch and 0 for a slot left over.
    """
    index = jnp.argsort(~mask, axis=1, stable=True)[:, :slots].astype(jnp.int32)
    used = jnp.take_along_axis(mask, index, axis=1).astype(jnp.float32)
    return index, used


class Pretrain(encoders.EncoderTask):
    """BEiT pre-training on the target named in `config.task.target`.

    The loss is the mean over all predicted patches of the global batch. (The official
    code averages each GPU's patches first and then the GPUs, which differs where GPUs
    mask unequal counts.) The prediction layer runs on predicted patches only.

    With a head that decodes, as MAE's, the encoder sees no hidden patch, not even as a
    mask token; of an image that hides fewer than it might, it sees not all others.

    A head may give several predictions, whose losses add up, as BEiT v2's do
    (arXiv:2208.06366, eq. 5): a NamedTuple, or a tuple. Each loss is told, as loss_NAME
    or loss_0 and so on; all other metrics and pictures are of the first.

    Args:
      target: name and settings, see beit_jax/targets.
      head: name (of HEADS, "tokens" unless said) and settings; the head is given
        `outputs` and, as far as it takes it, `dtype`.
      predict: "masked" patches, or "all" ("recover 100 %" in BEiT's table 4).
    """

    usual = {"head": "tokens"}
    columns = {
        "prediction": ("image, masked", "the target's view", "predicted where masked")
    }

    def __init__(
        self,
        config: ConfigDict,
        target: Mapping[str, Any],
        predict: str = "masked",
        head: Mapping[str, Any] = (),
    ):
        encoder, size, self._space = encoders.build(config, mask_token=True)
        grid, patch = encoder.grid, encoder.patch_size
        self.target = lookup.build(
            TARGETS, target, "beit_jax.targets", grid=grid, patch_size=patch
        )
        self.frozen = {"target": self.target.frozen} if self.target.frozen else {}
        self.outputs, self.headline = ("reconstruction",), ("loss",)
        if self.target.tokens:
            self.outputs = ("tokens", "reconstruction")
            self.headline = ("loss", "accuracy", "unigram_accuracy")
        self.network = encoders.with_head(
            encoder,
            {"name": self.usual["head"], **dict(head)},
            outputs=self.target.outputs,
        )
        self._predict_all = predict == "all"
        self.slots = self._count_slots(config.data.mask, predict)
        self._visible = 0  # patches that the encoder sees, where it is not all
        if getattr(self.network.output, "decodes", False):
            self._visible = self._count_visible(config.data.mask)
            self.network = Network(encoder.clone(mask_token=False), self.network.output)
        self.train_spec = {
            "image": jax.ShapeDtypeStruct((*size, 3), jnp.uint8),
            "token_image": jax.ShapeDtypeStruct(
                (*self.target.image_size, 3), jnp.uint8
            ),
            "mask": jax.ShapeDtypeStruct(grid, jnp.bool_),
            **on_device.example_spec(config, labels=False),
        }

    def _count_slots(self, mask: Mapping[str, Any], predict: str) -> int:
        """K, the largest number of patches to predict in an image."""
        if predict not in PREDICT:
            raise ValueError(f"config.task.predict={predict!r} is none of {PREDICT}")
        patches = math.prod(self.encoder.grid)
        if predict == "all":
            return patches
        if mask.get("name") == "none":
            raise ValueError(
                "config.data.mask.name='none' hides nothing, so nothing would be "
                "predicted; set config.task.predict='all'"
            )
        slots = counted(mask, patches).get("max_patches")
        if not isinstance(slots, int) or not 0 < slots <= patches:
            raise ValueError(
                f"config.data.mask.max_patches={slots!r} must be in 1..{patches}, "
                "the number of patches of an image; or give their share as ratio"
            )
        return slots

    def _count_visible(self, mask: Mapping[str, Any]) -> int:
        """Patches that are left of an image whose mask hides most of them."""
        patches = math.prod(self.encoder.grid)
        hidden = counted(mask, patches).get("max_patches")
        hidden = 0 if mask.get("name") == "none" else hidden
        if not isinstance(hidden, int) or not 0 <= hidden < patches:
            raise ValueError(
                f"config.data.mask.max_patches={hidden} leaves none of the {patches} "
                "patches to encode; MAE hides three in four"
            )
        return patches - hidden

    def train_loss(self, params: Tree, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        sums, model_state = self._sums(params, batch, ctx, train=True)
        loss, weight = sums["loss"]
        # An image may by chance have nothing masked, a whole batch too if it is tiny.
        return loss / jnp.maximum(weight, 1.0), Aux(sums, model_state)

    def eval_step(self, params: Tree, batch: Batch, ctx: Context) -> Sums:
        return self._sums(params, batch, ctx, train=False)[0]

    def _sums(
        self, params: Tree, batch: Batch, ctx: Context, train: bool
    ) -> tuple[Sums, Tree]:
        wanted = self._wanted(batch, ctx)
        mask = _flat(batch["mask"])
        index, used = masked_slots(self._wanted_at(mask), self.slots)
        used = used * batch["weight"][:, None]
        predicted, state = self._predict(params, batch, index, ctx, train)
        at = index if self.target.tokens else index[..., None]
        wanted = jnp.take_along_axis(wanted, at, axis=1)
        count = jnp.sum(used)
        losses = [jnp.sum(self.target.loss(p, wanted) * used) for p in predicted]
        sums = {"loss": (sum(losses[1:], losses[0]), count)}
        if len(losses) > 1:
            names = getattr(predicted, "_fields", range(len(losses)))
            each = zip(names, losses, strict=True)
            sums |= {f"{_EACH}{name}": (loss, count) for name, loss in each}
        if self.target.tokens:
            hit = self.target.best(predicted[0]) == wanted
            share = jnp.zeros(self.target.outputs).at[wanted].add(used)
            sums["accuracy"] = (jnp.sum(hit * used), count)
            sums["token_share"] = (share, count)
        hidden = jnp.sum(mask, axis=1) @ batch["weight"]
        sums["masked_patches"] = (hidden, jnp.sum(batch["weight"]))
        return sums, state

    def _wanted(self, batch: Batch, ctx: Context) -> Array:
        """What the target wants of every patch."""
        seen = on_device.pixels(batch, "token_image")
        return self.target(ctx.frozen.get("target"), seen)

    def _wanted_at(self, mask: Array) -> Array:
        """(B, N) bool masked patches -> the patches to predict."""
        return jnp.ones_like(mask) if self._predict_all else mask

    def _predict(
        self, params: Tree, batch: Batch, index: Array, ctx: Context, train: bool
    ) -> tuple[tuple[Array, ...], Tree]:
        """Predictions (B, K, outputs) for the patches at `index` (B, K)."""
        image = self._space.to_float(on_device.pixels(batch, "image"))
        shown = self._shown(_flat(batch["mask"]))
        made, state = self._apply(params, ctx, image, index=index, train=train, **shown)
        return (made if isinstance(made, tuple) else (made,)), state

    def _shown(self, mask: Array) -> dict[str, Array]:
        """What the encoder is told of the patches that (B, N) hides."""
        if not self._visible:
            return {"mask": mask}
        order = jnp.argsort(mask, axis=1, stable=True).astype(jnp.int32)
        return {"visible": order[:, : self._visible]}

    def train_scorer(self) -> Means:
        return Means(self._blind_guess)

    def _blind_guess(self, means: Mapping, weights: Mapping) -> Numbers:
        """What the best guess without looking would reach: one token for all."""
        if "token_share" not in means:
            return {}
        share = means["token_share"]
        used = share[share > 0]
        predictions = max(1, sum(name.startswith(_EACH) for name in means))
        return {
            "unigram_accuracy": float(share.max()),
            "unigram_loss": float(-np.sum(used * np.log(used))) * predictions,
            "chance_accuracy": 1 / self.target.outputs,
            "tokens": float(weights["token_share"]),
        }

    def warnings(self, metrics: Mapping[str, float], progress: float) -> dict[str, str]:
        """Once that should have shown, whether it does better than without looking."""
        counted = metrics.get("tokens", 0)
        if progress < SETTLED or counted < ENOUGH * self.target.outputs:
            return {}
        found = {}
        loss, blind = metrics["loss"], metrics["unigram_loss"]
        if loss >= blind:
            found["loss"] = (
                f"{loss:.3f} nats at {progress:.0%} of the run are not below the "
                f"{blind:.3f} of guessing by frequency; change optim.lr or its warm-up "
                "and see in pictures/ whether the tokens show the image"
            )
        hits, blind = metrics["accuracy"], metrics["unigram_accuracy"]
        if hits < blind:
            found["accuracy"] = (
                f"{hits:.2%} at {progress:.0%} of the run are below the {blind:.2%} of "
                "always guessing the most frequent token; change optim.lr or its "
                "warm-up and see in pictures/ whether the tokens show the image"
            )
        return found

    def pictures(self, params: Tree, batch: Batch, ctx: Context) -> dict[str, Array]:
        """masked input | what the target sees of the image | the model's prediction"""
        wanted, guess = self._everywhere(params, batch, ctx)
        shown = self._wanted_at(_flat(batch["mask"]))
        shown = shown if self.target.tokens else shown[..., None]
        mixed = jnp.where(shown, guess, wanted)
        patch = self.encoder.patch_size
        grey = batch["mask"].repeat(patch, 1).repeat(patch, 2)[..., None]
        shape, frozen = batch["image"].shape, ctx.frozen.get("target")
        columns = [
            jnp.where(grey, jnp.uint8(128), batch["image"]),
            _resize(self.target.paint(frozen, wanted, batch["token_image"]), shape),
            _resize(self.target.paint(frozen, mixed, batch["token_image"]), shape),
        ]
        return {"prediction": jnp.concatenate(columns, axis=2)}

    def _everywhere(
        self, params: Tree, batch: Batch, ctx: Context
    ) -> tuple[Array, Array]:
        """What the target wants of every patch, and the best prediction of it."""
        wanted = self._wanted(batch, ctx)
        patches = jnp.arange(math.prod(self.encoder.grid))
        index = jnp.broadcast_to(patches, (len(batch["image"]), len(patches)))
        predicted, _ = self._predict(params, batch, index, ctx, train=False)
        return wanted, self.target.best(predicted[0])

    def predict(
        self, what: str, params: Tree, batch: Batch, ctx: Context
    ) -> dict[str, Array]:
        """Beside the predicted tokens: the mask, and what the tokenizer gives."""
        if what == "reconstruction":
            return {"picture": self.pictures(params, batch, ctx)["prediction"]}
        mask = batch["mask"]
        wanted, guess = self._everywhere(params, batch, ctx)
        grids = {"tokens": guess, "tokenizer": wanted}
        grids = {name: ids.reshape(mask.shape) for name, ids in grids.items()}
        return grids | {"mask": mask}


def _flat(mask: Array) -> Array:
    """(B, h, w) -> (B, N), row by row."""
    return mask.reshape(len(mask), -1)


def _resize(image: Array, shape: tuple[int, ...]) -> Array:
    return jax.image.resize(image, shape, "nearest")
