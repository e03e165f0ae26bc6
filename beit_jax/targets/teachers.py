"""Frozen networks whose features of patches others learn. A new one is a line here."""

from collections.abc import Mapping
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from beit_jax.checkpoints.frozen import Frozen, Network, Restored, Untrained
from beit_jax.models import backbones
from beit_jax.ranges import Count, Length

Array = jax.Array
Tree = Any

UNTRAINED = "untrained"
DTYPES = ("float32", "bfloat16")
SMALL = {"dim": 32, "depth": 2, "heads": 4}  # the random network, unless it is said
HAVE_ENCODERS = ("pretrain", "classify", "multilabel", "regress")  # tasks


class Teacher(Protocol):
    """A frozen network as one vector for each patch of a grid."""

    width: int  # of the vectors
    image_size: tuple[int, int]  # height and width of what it sees
    frozen: Network

    def __call__(self, frozen: Tree, image: Array) -> Array:
        """(B, H, W, 3) uint8, or float in [0, 255] -> (B, N, width) float32.

        `frozen` are the weights. No gradient goes into them.
        """


class EncoderTeacher:
    """The encoder of a run or of a file: what it makes of whole images.

    CLIP gives its projected patches, DINO, MAE and BEiT what their last norm gives.

    Args:
      grid: of the patches that are to have a vector each; the teacher sees the image
        at so many of its own patches, resized where they are of another size.
      patch_size: of those patches, and of a random network's unless it is said.
      checkpoint: with an encoder (a run's work directory, another project's file: see
        checkpoints/read.py), or "untrained": random weights from a fixed seed, which is
        only good for trying things out.
      block: whose raw output is taken, counted from 0; None: the last features, after
        the encoder's norm and projection where it has them.
      normalize: every vector is brought to mean 0 and variance 1, as in data2vec.
      dtype: of the teacher's products.
      untrained: settings of that random encoder, as in the section `model`.

    Raises:
      ValueError: no such checkpoint, none with an encoder, or no such block.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        patch_size: Length,
        checkpoint: str,
        block: Count | None = None,
        normalize: bool = False,
        dtype: str = "float32",
        untrained: Mapping[str, Any] = (),
    ):
        if dtype not in DTYPES:
            raise ValueError(f"teacher.dtype={dtype!r} is none of {DTYPES}")
        self._normalize = normalize
        if checkpoint == UNTRAINED:
            self.frozen = Untrained(self._start)
            model = {"patch_size": patch_size, **SMALL, **dict(untrained)}
            given = {"mask_token": True}
        else:
            self.frozen = Frozen(checkpoint, self._encoder_of)
            model, given = _trained(self.frozen, untrained)
        size = model.get("patch_size", 16)
        self.image_size = (grid[0] * size, grid[1] * size)
        encoder, _, self._space = backbones.build(
            model | {"image_size": self.image_size}, jnp.dtype(dtype), **given
        )
        # It sees whole images: nothing is hidden.
        taps = () if block is None else (block,)
        self._encoder = encoder.clone(mask_token=False, taps=taps)
        self.width = (block is None and encoder.projection) or encoder.dim

    def __call__(self, frozen: Tree, image: Array) -> Array:
        image = self._space.to_float(self._sized(image))
        made = self._encoder.apply({"params": frozen}, image)
        stage = made.taps[0] if made.taps else made.last
        x = jax.lax.stop_gradient(stage.patches.astype(jnp.float32))
        return jax.nn.standardize(x, epsilon=1e-5) if self._normalize else x

    def _encoder_of(self, saved: Restored) -> Tree:
        """The encoder's parameters, its positions for our grid."""
        return self._encoder.adapt(saved.params["encoder"], saved.config["model"])

    def _start(self) -> Tree:
        image = jnp.zeros((1, *self.image_size, 3))
        return nn.unbox(self._encoder.init(jax.random.key(0), image))["params"]

    def _sized(self, image: Array) -> Array:
        if image.shape[1:3] == self.image_size:
            return image
        shape = (len(image), *self.image_size, 3)
        resized = jax.image.resize(image.astype(jnp.float32), shape, "bicubic")
        return jnp.clip(resized, 0, 255)


def _trained(
    network: Frozen, untrained: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, bool]]:
    """Settings of a teacher's model, and whether it pre-trained and has a last norm."""
    if untrained:
        raise ValueError(
            f"teacher.untrained is for checkpoint='untrained', not {network.path}"
        )
    task, model = network.config["task"], dict(network.config["model"])
    if task["name"] not in HAVE_ENCODERS or "lora" in task:
        raise ValueError(
            f"{network.path} is of task {task['name']!r}, which has no encoder of "
            f"its own; a teacher needs one of {HAVE_ENCODERS}, without lora"
        )
    pretrains = task["name"] == "pretrain"
    has_norm = pretrains or task.get("pool", "mean") == "cls"
    return model, {"mask_token": pretrains, "final_norm": has_norm}


TEACHERS = {"encoder": EncoderTeacher}
