"""Features that a frozen network gives the patches: MVP, EVA, MILAN, data2vec."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from beit_jax.checkpoints.frozen import Frozen, Restored, Untrained
from beit_jax.models import backbones
from beit_jax.ranges import Count, Length, Positive
from beit_jax.targets.tokens import DTYPES, UNTRAINED

Array = jax.Array
Tree = Any

NORMS = ("none", "layer")
SMALL = {"dim": 32, "depth": 2, "heads": 4}  # the random network, unless it is said


class Features:
    """Distance to what a teacher, an encoder that is not trained, makes of a patch.

    The teacher sees a view of its own, with one of its patches for each of ours, in its
    own pixel space. CLIP gives its projected patches (MVP, arXiv:2203.05175; EVA,
    arXiv:2211.07636; with task.predict="all" MILAN, arXiv:2208.06049), DINO, MAE and
    BEiT what their last norm gives.

    Args:
      checkpoint: with an encoder (a run's work directory, another project's file: see
        checkpoints/read.py), or "untrained": random weights from a fixed seed, which is
        only good for trying things out.
      layer: the block, counting from 0, whose raw output is wanted; None: what the
        teacher gives after all of them, its norm and its projection.
      loss: "cosine" (1 less the cosine; EVA and MILAN have twice that), "smooth_l1" or
        "mse".
      beta: where smooth L1 turns from a square to a line.
      normalize: "layer": features are first brought to mean 0 and variance 1 over a
        patch, as in data2vec; "none".
      dtype: of the teacher's products.
      untrained: settings of that random network, as in the section `model`.

    Raises:
      ValueError: no such checkpoint or layer, or settings that there are not.
    """

    tokens = False

    def __init__(
        self,
        grid: tuple[int, int],
        patch_size: Length,
        checkpoint: str,
        layer: Count | None = None,
        loss: str = "cosine",
        beta: Positive = 1.0,
        normalize: str = "none",
        dtype: str = "float32",
        untrained: Mapping[str, Any] = (),
    ):
        for key, value, known in (
            ("loss", loss, LOSSES),
            ("normalize", normalize, NORMS),
            ("dtype", dtype, DTYPES),
        ):
            if value not in known:
                raise ValueError(
                    f"task.target.{key}={value!r} is none of {', '.join(known)}"
                )
        self.grid, self._normalize = tuple(grid), normalize == "layer"
        self._distance, self._beta = LOSSES[loss], beta
        if checkpoint == UNTRAINED:
            self.frozen = Untrained(self._start)
            model = {"patch_size": patch_size, **SMALL, **dict(untrained)}
            given = {"mask_token": True}
        else:
            self.frozen = Frozen(checkpoint, self._encoder_of)
            model, given = _encoder(self.frozen, untrained)
        size = model.get("patch_size", 16)
        self.image_size = (grid[0] * size, grid[1] * size)
        given |= {"taps": () if layer is None else (layer,)}
        encoder, _, self._space = backbones.build(
            model | {"image_size": self.image_size}, jnp.dtype(dtype), **given
        )
        self._model = encoder.clone(mask_token=False)  # nothing is hidden of its view
        width = self._model.dim if layer is not None else 0
        self.outputs = width or self._model.projection or self._model.dim

    def _encoder_of(self, saved: Restored) -> Tree:
        model = saved.config["model"]
        return {"params": self._model.adapt(saved.params["encoder"], model)}

    def _start(self) -> Tree:
        image = jnp.zeros((1, *self.image_size, 3))
        return nn.unbox(self._model.init(jax.random.key(0), image))

    def __call__(self, frozen: Tree, image: Array) -> Array:
        made = self._model.apply(frozen, self._space.to_float(image))
        stage = made.taps[0] if made.taps else made.last
        wanted = stage.patches.astype(jnp.float32)
        if not self._normalize:
            return wanted
        centred = wanted - wanted.mean(-1, keepdims=True)
        return centred * jax.lax.rsqrt(wanted.var(-1, keepdims=True) + 1e-5)

    def loss(self, predicted: Array, wanted: Array) -> Array:
        return self._distance(predicted, wanted, self._beta)

    def best(self, predicted: Array) -> Array:
        return predicted

    def paint(self, frozen: Tree, wanted: Array, image: Array) -> Array:
        """The three main directions of the teacher's features, as red, green, blue."""
        seen = self(frozen, image).reshape(-1, self.outputs)
        mean = seen.mean(axis=0)
        _, directions = jnp.linalg.eigh(jnp.cov(seen.T))
        main = directions[:, -3:]
        spread = jnp.std(seen @ main, axis=0) + 1e-12
        colours = 0.5 + 0.25 * ((wanted - mean) @ main) / spread
        picture = jnp.clip(colours, 0, 1).reshape(-1, *self.grid, 3)
        for axis in (1, 2):
            times = self.image_size[axis - 1] // self.grid[axis - 1]
            picture = picture.repeat(times, axis)
        return jnp.round(255 * picture).astype(jnp.uint8)


def _encoder(
    network: Frozen, untrained: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, bool]]:
    """Settings of a teacher's model, and whether it pre-trained and has a last norm."""
    if untrained:
        raise ValueError(
            f"task.target.untrained is for checkpoint='untrained', not {network.path}"
        )
    task, model = network.config["task"], dict(network.config["model"])
    if model.get("name", "vit") not in backbones.BACKBONES or "lora" in task:
        raise ValueError(
            f"{network.path} is of task {task['name']!r}, which has no encoder of "
            "its own; name a checkpoint of pre-training or of fine-tuning"
        )
    pretrains = task["name"] == "pretrain"
    has_norm = pretrains or task.get("pool", "mean") == "cls"
    return model, {"mask_token": pretrains, "final_norm": has_norm}


def _cosine(predicted: Array, wanted: Array, beta: float) -> Array:
    return 1 - jnp.sum(_unit(predicted) * _unit(wanted), axis=-1)


def _unit(x: Array) -> Array:
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-16))


def _smooth_l1(predicted: Array, wanted: Array, beta: float) -> Array:
    error = jnp.abs(predicted - wanted)
    near = 0.5 * jnp.square(error) / beta
    return jnp.mean(jnp.where(error < beta, near, error - 0.5 * beta), axis=-1)


def _mse(predicted: Array, wanted: Array, beta: float) -> Array:
    return jnp.mean(jnp.square(predicted - wanted), axis=-1)


LOSSES: dict[str, Callable[[Array, Array, float], Array]] = {
    "cosine": _cosine,
    "smooth_l1": _smooth_l1,
    "mse": _mse,
}
