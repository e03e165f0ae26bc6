"""Semantic segmentation: a class for every pixel."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from beit_jax import sharding
from beit_jax.models.sampling import bilinear
from beit_jax.palette import palette
from beit_jax.ranges import Classes, Weight
from beit_jax.tasks import encoders, map_scores, on_device, pixel_losses
from beit_jax.tasks import inference as inference_lib
from beit_jax.tasks.base import Array, Batch, Context, Sums, Tree
from beit_jax.tasks.pixel_losses import IGNORED

TAPS = {"official": 0, "hf": -2}  # convention -> what is added to the blocks' numbers
LARGEST = 512  # pixels along a side of a picture


class Segment(encoders.EncoderTask):
    """An encoder with a head that gives maps of logits.

    Args:
      classes: C; a pixel's label is in [0, C), or 255 where it is ignored.
      head: name (of HEADS, "upernet" unless said) and settings; it is given `classes`
        and, as far as it takes them, `norm_eps` and `dtype`.
      taps: blocks whose outputs the head sees, counted from 0; (): those after 1/3,
        1/2, 2/3 and all of them, 3, 5, 7, 11 of 12 and 7, 11, 15, 23 of 24.
      tap_convention: "official", or "hf": two blocks earlier, as transformers'
        BeitForSemanticSegmentation reads the same numbers; to compare with that.
      auxiliary_weight: of the loss of each auxiliary head, 1 for that of the head.
      losses: name (of PIXEL_LOSSES) -> settings and `weight` (1) of each loss; their
        sum is trained. () is cross_entropy over all pixels.
      inference: how an evaluation sees whole images, see `Inference`.

    Evaluations and predictions see images at their own size and are measured there;
    `data.eval_frame` is not followed.
    """

    usual = {"head": "upernet"}
    headline = ("loss", "pixel_accuracy", "miou")
    outputs = ("segments",)
    columns = {"segments": ("image", "labels, ignored black", "predicted")}

    def __init__(
        self,
        config: ConfigDict,
        classes: Classes,
        head: Mapping[str, Any] = (),
        taps: tuple = (),
        tap_convention: str = "official",
        auxiliary_weight: Weight = 0.4,
        losses: Mapping[str, Any] = (),
        inference: Mapping[str, Any] = (),
    ):
        encoder, size, self._space = encoders.build(config, final_norm=False)
        encoder = encoder.clone(taps=_taps(taps, tap_convention, encoder.depth))
        self.network = encoders.with_head(
            encoder, {"name": self.usual["head"], **dict(head)}, classes=classes
        )
        self.classes, self._auxiliary = classes, auxiliary_weight
        self._loss = pixel_losses.build(losses or {"cross_entropy": {}})
        self._seeing = inference_lib.build(inference, size, encoder.patch_size)
        self.train_spec = {
            "image": jax.ShapeDtypeStruct((*size, 3), jnp.uint8),
            "labels_2d": jax.ShapeDtypeStruct(size, jnp.int32),
            **on_device.example_spec(config, labels=False),
        }
        room = self._seeing.room
        self.eval_spec = {
            "image": jax.ShapeDtypeStruct((*room, 3), jnp.uint8),
            "label_map": jax.ShapeDtypeStruct(room, jnp.uint8),
            "frame": jax.ShapeDtypeStruct((11,), jnp.int32),
        }

    def eval_data(self, data: ConfigDict) -> ConfigDict:
        own = data.copy_and_resolve_references()
        own.eval_frame = ConfigDict({"name": "native"})
        return own

    def _sums(self, params: Tree, batch: Batch, ctx: Context) -> tuple[Sums, Tree]:
        batch = _filled(batch)
        image = self._space.to_float(on_device.pixels(batch, "image"))
        labels, weight = batch["labels_2d"], batch["weight"]
        maps, model_state = self._apply(params, ctx, image, train=True)

        first, *others = (
            bilinear(logits, labels.shape[1:])
            for logits in (maps.logits, *maps.auxiliary)
        )
        loss, count = self._loss(first, labels, weight)
        sums = {"decode_loss": (loss, count)}
        for number, logits in enumerate(others, 1):
            found = sums[f"auxiliary_loss_{number}"] = self._loss(
                logits, labels, weight
            )
            loss += self._auxiliary * found[0]
        hits = pixel_losses.hits(first, labels, weight)
        return {"loss": (loss, count), **sums, "pixel_accuracy": hits}, model_state

    def eval_step(self, params: Tree, batch: Batch, ctx: Context) -> dict[str, Array]:
        """confusion (C, C) int32, counts of pixels by label and prediction, and the
        sum `nll` of their losses."""
        unweighed = batch["weight"][:, None, None] == 0
        labels = jnp.where(unweighed, IGNORED, batch["label_map"].astype(jnp.int32))

        def measured(classes: Array, nll: Array, labels: Array) -> dict[str, Array]:
            valid = labels < self.classes
            pair = jnp.where(valid, labels * self.classes + classes, self.classes**2)
            counts = jnp.zeros(self.classes**2 + 1, jnp.int32).at[pair].add(1)
            square = counts[:-1].reshape(self.classes, self.classes)
            return {"confusion": square, "nll": jnp.sum(nll, where=valid)}

        each = self._by_parts(params, batch | {"labels": labels}, ctx, measured)
        return jax.tree.map(lambda part: jnp.sum(part, axis=0), each)

    def predict(
        self, what: str, params: Tree, batch: Batch, ctx: Context
    ) -> dict[str, Array]:
        return {"segments": self._maps(params, batch, ctx)}

    def _maps(self, params: Tree, batch: Batch, ctx: Context) -> Array:
        """(B, *room) uint16, the class of each pixel of whole images."""
        nothing = jnp.zeros(batch["image"].shape[:3], jnp.int32)
        made = self._by_parts(
            params,
            batch | {"labels": nothing},
            ctx,
            lambda classes, *_: classes.astype(jnp.uint16),
        )
        return made.swapaxes(0, 1).reshape(nothing.shape)

    def _by_parts(self, params: Tree, batch: Batch, ctx: Context, tell) -> Tree:
        """What `tell` makes of classes, -logs and labels, an image a device at a time.

        -> its arrays with a leading axis: of the images that a device has.
        """

        def logits_of(image: Array) -> Array:
            seen = self._space.to_float(image)
            return self._apply(params, ctx, seen, train=False)[0].logits

        def one(part: Batch) -> Tree:
            size = part["frame"][:, 2:4]  # of the image as it lies in its room
            found = self._seeing(logits_of, part["image"], size, part["labels"])
            return tell(*found, part["labels"])

        seen = {name: batch[name] for name in ("image", "frame", "labels")}
        count = len(batch["image"]) // sharding.ways()
        return jax.lax.map(one, sharding.parts(seen, count))

    def pictures(self, params: Tree, batch: Batch, ctx: Context) -> dict[str, Array]:
        """image | labels over it | predicted classes over it"""
        found = self._maps(params, batch, ctx)
        image, labels = batch["image"], batch["label_map"]
        step = -(-max(image.shape[1:3]) // LARGEST)
        image, found, labels = (x[:, ::step, ::step] for x in (image, found, labels))
        shown = [image, painted(image, labels), painted(image, found)]
        return {"segments": jnp.concatenate(shown, axis=2)}

    def scorer(self, info: Any) -> map_scores.MapScorer:
        return map_scores.MapScorer(self.classes, info.class_names)


def painted(image: Array, labels: Array) -> Array:
    """(B, H, W, 3) uint8 under the colours of labels (B, H, W); others are black."""
    colours = jnp.asarray(palette()).at[IGNORED].set(0)
    over = colours[jnp.minimum(labels, IGNORED)].astype(jnp.float32)
    return (0.5 * image + 0.5 * over).astype(jnp.uint8)


def _taps(given: tuple, convention: str, depth: int) -> tuple[int, ...]:
    """The blocks whose outputs a head sees."""
    if convention not in TAPS:
        raise ValueError(
            f"config.task.tap_convention={convention!r} must be one of {tuple(TAPS)}"
        )
    blocks = given or tuple(max(depth * part // 12 - 1, 0) for part in (4, 6, 8, 12))
    return tuple(block + TAPS[convention] for block in blocks)


def _filled(batch: Batch) -> Batch:
    """With another image in place of one that does not count.

    A batch norm sees all of them, and what was skipped must not teach it.
    """
    used = batch["weight"] > 0

    def replaced(image: Array) -> Array:
        return image[jnp.where(used, jnp.arange(len(used)), jnp.argmax(used))]

    image = jax.lax.cond(used.all(), lambda image: image, replaced, batch["image"])
    return batch | {"image": image}
