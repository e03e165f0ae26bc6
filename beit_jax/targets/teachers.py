"""Frozen networks whose features of patches others learn. A new one is a line here."""

from collections.abc import Mapping
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from beit_jax import lookup
from beit_jax.checkpoints.frozen import Frozen, Network, Restored, Untrained
from beit_jax.models.backbones import BACKBONES
from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.ranges import Count

Array = jax.Array
Tree = Any

UNTRAINED = "untrained"
DTYPES = ("float32", "bfloat16")
HAVE_ENCODERS = ("pretrain", "classify", "multilabel", "regress")  # tasks


class Teacher(Protocol):
    """A frozen network as one vector for each patch of a grid."""

    width: int  # of the vectors
    frozen: Network

    def __call__(self, frozen: Tree, image: Array) -> Array:
        """(B, H, W, 3) uint8, or float in [0, 255] -> (B, N, width) float32.

        `frozen` are the weights. No gradient goes into them.
        """


class EncoderTeacher:
    """The encoder of a run or of a file: what it makes of whole images.

    Args:
      grid: of the patches that are to have a vector each; the teacher sees the image
        at so many of its own patches, resized where they are of another size.
      checkpoint: with an encoder (a run's work directory, another project's file: see
        checkpoints/read.py), or "untrained": random weights from a fixed seed.
      block: whose raw output is taken, counted from 0; None: the last features, after
        the encoder's norm where it has one.
      normalize: every vector is brought to mean 0 and variance 1.
      dtype: of the teacher's products.
      untrained: the section `model` of that random encoder, without its image_size.

    Raises:
      ValueError: no such checkpoint, none with an encoder, or no such block.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        checkpoint: str,
        block: Count | None = None,
        normalize: bool = False,
        dtype: str = "float32",
        untrained: Mapping[str, Any] = (),
    ):
        if dtype not in DTYPES:
            raise ValueError(f"teacher.dtype={dtype!r} is none of {DTYPES}")
        self._block, self._normalize = block, normalize
        if checkpoint == UNTRAINED:
            self.frozen = Untrained(self._start)
            model, task = dict(untrained), {"name": "pretrain"}
        else:
            self.frozen = Frozen(checkpoint, self._encoder_of)
            model, task = _trained(self.frozen)
        self._space = lookup.lookup(
            PIXEL_SPACES, model.pop("pixels", "half"), "teacher.pixels"
        )
        pretrains = task["name"] == "pretrain"
        self._encoder = _encoder(
            model,
            pretrains,
            grid=grid,
            dtype=jnp.dtype(dtype),
            final_norm=pretrains or task.get("pool", "mean") == "cls",
            taps=() if block is None else (block,),
        )
        self.width = self._encoder.dim

    def __call__(self, frozen: Tree, image: Array) -> Array:
        image = self._space.to_float(self._sized(image))
        made = self._encoder.apply({"params": frozen}, image)
        stage = made.last if self._block is None else made.taps[0]
        x = jax.lax.stop_gradient(stage.patches.astype(jnp.float32))
        return jax.nn.standardize(x, epsilon=1e-6) if self._normalize else x

    def _encoder_of(self, saved: Restored) -> Tree:
        """The encoder's parameters, its positions for our grid."""
        return self._encoder.adapt(saved.params["encoder"], saved.config["model"])

    def _start(self) -> Tree:
        image = jnp.zeros((1, *self._size(), 3))
        return nn.unbox(self._encoder.init(jax.random.key(0), image))["params"]

    def _size(self) -> tuple[int, int]:
        """Height and width of what the encoder sees."""
        rows, columns = self._encoder.grid
        return rows * self._encoder.patch_size, columns * self._encoder.patch_size

    def _sized(self, image: Array) -> Array:
        if image.shape[1:3] == self._size():
            return image
        shape = (len(image), *self._size(), 3)
        resized = jax.image.resize(image.astype(jnp.float32), shape, "bicubic")
        return jnp.clip(resized, 0, 255)


def _trained(network: Frozen) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sections `model` and `task` of the run that trained an encoder."""
    model, task = network.config["model"], network.config["task"]
    if task["name"] not in HAVE_ENCODERS:
        raise ValueError(
            f"{network.path} is of task {task['name']!r}; a teacher needs one of "
            f"{HAVE_ENCODERS}"
        )
    return dict(model), task


def _encoder(model: Mapping[str, Any], pretraining: bool, **given: Any) -> nn.Module:
    """A backbone of a section `model`."""
    settings = dict(model)
    name = settings.pop("name", "vit")
    backbone = lookup.lookup(BACKBONES, name, "beit_jax.models.backbones")
    settings = backbone.settings(settings, pretraining)
    unused = {"image_size", "drop_path", *given}
    settings = {k: value for k, value in settings.items() if k not in unused}
    return lookup.call(backbone, settings, "a teacher's model", **given)


TEACHERS = {"encoder": EncoderTeacher}
