"""What tasks share that learn what people say of whole images."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from beit_jax import lookup
from beit_jax.heads.linear import POOLS
from beit_jax.models.lora import Lora
from beit_jax.tasks import encoders, on_device
from beit_jax.tasks.base import Array, Batch, Context, Tree
from beit_jax.tasks.losses import LOSSES, Loss
from beit_jax.tasks.viewing import Viewing

BALANCED = "balanced"


class Supervised(encoders.EncoderTask):
    """An encoder with a head on whole images, and the augmentations of its step."""

    _weights: "ClassWeights | None" = None  # of a loss that has any
    columns = {
        "attention": ("image", "seen by [CLS], last block: black 0, red, white most")
    }

    def _build(
        self,
        config: ConfigDict,
        outputs: int,
        known: Mapping[str, jax.ShapeDtypeStruct],
        pool: str,
        head: Mapping[str, Any],
        head_init_scale: float,
        tta: str,
        lora: Mapping[str, Any],
    ) -> None:
        """Sets network, pool, views and what an example has.

        Args:
          outputs: numbers that the head gives of an image.
          known: what is said of an example, by the names of ANNOTATIONS.
        """
        if pool not in POOLS:
            raise ValueError(f"config.task: pool={pool!r} must be one of {POOLS}")
        encoder, size, self._space = encoders.build(config, final_norm=pool == "cls")
        self.network = encoders.with_head(
            encoder,
            {"name": self.usual["head"], **dict(head)},
            classes=outputs,
            pool=pool,
            init_scale=head_init_scale,
        )
        self.pool = pool
        self._lora = lookup.call(Lora, lora, "config.task.lora") if lora else None
        self.train_spec = {
            "image": jax.ShapeDtypeStruct((*size, 3), jnp.uint8),
            **known,
            **on_device.example_spec(config, labels=True),
        }
        self._viewing = Viewing(tta, config.data, size)
        shown = jax.ShapeDtypeStruct((*self._viewing.shown, 3), jnp.uint8)
        self.eval_spec = {"image": shown, **known}

    def weigh(self, counts: Callable[[], np.ndarray], examples: int) -> None:
        if self._weights:
            self._weights.weigh(counts, examples)

    def eval_data(self, data: ConfigDict) -> ConfigDict:
        return self._viewing.data(data)

    def init(self, rng: Array, batch: Batch) -> Tree:
        made = super().init(rng, batch)
        if self._lora:
            encoder = nn.unbox(made["params"]["encoder"])
            made["params"]["lora"] = self._lora.init(
                jax.random.fold_in(rng, 1), encoder
            )
        return made

    def _whole(self, params: Tree) -> Tree:
        """Those of the network, with what `lora` adds to them."""
        return self._lora.added(params) if self._lora else params

    def pictures(self, params: Tree, batch: Batch, ctx: Context) -> dict[str, Array]:
        """image | where [CLS] looks in the last block, all heads together"""
        image = self._viewing(batch["image"])[0]
        maps = encoders.attention_maps(
            self.encoder, self._whole(params)["encoder"], self._space.to_float(image)
        )
        seen = under_heat(image, maps["cls"][:, -1].mean(axis=1))
        return {"attention": jnp.concatenate([image, seen], axis=2)}

    def _plain(self, params: Tree, batch: Batch, ctx: Context) -> list[Array]:
        """The head's outputs (B, C) float32 for each view of images as they are."""
        params = self._whole(params)
        return [
            self._apply(params, ctx, self._space.to_float(image), train=False)[0]
            for image in self._viewing(batch["image"])
        ]

    def _augmented(
        self, params: Tree, batch: Batch, ctx: Context, wanted: Array
    ) -> tuple[Array, Array, Array, Tree]:
        """(outputs (B, C), what is wanted of them, weights (B,), other collections)."""
        image = self._space.to_float(on_device.pixels(batch, "image"))
        weight = batch["weight"]
        if "erase" in batch:
            image = on_device.erase(image, batch["erase"], batch["erase_seed"])
        if "mix" in batch:
            image, wanted = on_device.mix(image, wanted, batch["mix"])
            weight = weight * weight[::-1]  # a skipped partner spoils the row
        params = self._whole(params)
        outputs, model_state = self._apply(params, ctx, image, train=True)
        return outputs, wanted, weight, model_state


def loss_of(spec: Mapping[str, Any], default: str, fitting: tuple[str, ...]) -> Loss:
    """The loss that `task.loss` names, one of those that fit a task."""
    table = {name: LOSSES[name] for name in fitting}
    return lookup.build(table, {"name": default, **dict(spec)}, "config.task.loss")


class ClassWeights:
    """A factor for each of C classes: given, or found in what is trained on.

    Args:
      given: C numbers; BALANCED; or () for none.
      balance: (counts (C,) of the labels, examples) -> the numbers of BALANCED.

    Attributes:
      factors: (C,) float32, or None. Of BALANCED 1 each until the counts are known.
    """

    def __init__(
        self,
        given: tuple | str,
        classes: int,
        balance: Callable[[np.ndarray, int], np.ndarray],
    ):
        self._balance = balance if given == BALANCED else None
        self.factors: np.ndarray | None = None
        if self._balance:
            self.factors = np.ones(classes, np.float32)
        elif given != ():
            self.factors = _factors(given, classes)

    def weigh(self, counts: Callable[[], np.ndarray], examples: int) -> None:
        if self._balance:
            self.factors = self._balance(counts(), examples).astype(np.float32)


def _factors(given: tuple | str, classes: int) -> np.ndarray:
    if isinstance(given, str) or len(given) != classes:
        raise ValueError(
            f"config.task: class_weights={given!r} must be {BALANCED!r} or one number "
            f"for each of the {classes} classes"
        )
    if not all(lookup.has_type(x, float) and 0 < x < np.inf for x in given):
        raise ValueError(f"config.task: class_weights={given} must be numbers above 0")
    return np.array(given, np.float32)


def under_heat(image: Array, heat: Array) -> Array:
    """(B, H, W, 3) uint8 in grey; (B, h, w) over it, black to red, yellow, white."""
    heat = heat / heat.max(axis=(1, 2), keepdims=True)
    heat = jax.image.resize(heat, image.shape[:3], "linear")[..., None]
    colour = 255 * jnp.clip(3 * heat - jnp.arange(3), 0, 1)
    grey = image.mean(axis=3, keepdims=True)
    return (0.3 * grey + 0.7 * colour).astype(jnp.uint8)
