"""What every block of a frozen encoder makes of the images of a split."""

import functools
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from beit_jax import config as config_lib
from beit_jax import sharding
from beit_jax.checkpoints import steps
from beit_jax.data import pipeline
from beit_jax.data.pipeline import EvalStream
from beit_jax.data.sources import difference
from beit_jax.models.pixels import PixelSpace
from beit_jax.models.vit import Encoder
from beit_jax.tasks import encoders
from beit_jax.text import one_line

Encode = Callable[[jax.Array], jax.Array]


class Frozen(NamedTuple):
    """A checkpoint's encoder."""

    encode: Encode  # (B, H, W, 3) uint8 -> (L, B, F) float32 of length 1
    blocks: int  # L
    size: tuple[int, int]  # height and width of the images


class Bank(NamedTuple):
    """What is known of the n images of a split that could be used."""

    features: np.ndarray  # (L, n, F) float32 of every block, each of length 1
    labels: np.ndarray  # (n,)
    index: np.ndarray  # (n,) where they are in the source
    stream: EvalStream

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.stream.info.class_names

    def images(self, rows: np.ndarray) -> np.ndarray:
        """(...) row numbers -> (..., H, W, 3) uint8, as the encoder saw them."""
        plan = self.stream.plan
        seen = [plan.example(i, np.empty(0))["image"] for i in self.index[rows].flat]
        return np.stack(seen).reshape(*rows.shape, *seen[0].shape)


def has_encoder(saved: steps.Restored) -> bool:
    return "cls_token" in saved.params.get("encoder", {})


def encoder_of(saved: steps.Restored) -> tuple[Encoder, tuple[int, int], PixelSpace]:
    """That of params["encoder"], as `encoders.build` gives it: no task is built.

    Raises:
      ValueError: there is none in the checkpoint.
    """
    if not has_encoder(saved):
        raise ValueError(
            f"{saved.path} is of task {saved.config['task']['name']!r}, which has no "
            "BEiT encoder; name one of pre-training or of fine-tuning"
        )
    return encoders.build(
        config_lib.from_dict(saved.config),
        mask_token="mask_token" in saved.params["encoder"],
        final_norm="norm" in saved.params["encoder"],
    )


def freeze(saved: steps.Restored, kind: str, mesh: Mesh) -> Frozen:
    """The encoder of a checkpoint.

    Args:
      kind: of features, one of `encoders.FEATURES`.
      mesh: the encoder lies on each of its devices.

    Raises:
      ValueError: there is none in the checkpoint.
    """
    encoder, size, space = encoder_of(saved)
    params = jax.device_put(saved.params["encoder"], sharding.replicated(mesh))

    @jax.jit
    def encode(params, image):
        x = encoders.block_features(encoder, params, space.to_float(image), kind)
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    return Frozen(functools.partial(encode, params), encoder.depth, size)


def splits(data: ConfigDict, size: tuple[int, int]) -> tuple[EvalStream, EvalStream]:
    """`data.source` and `data.eval_source`, both labelled, in order, centre-cropped.

    Raises:
      ValueError: no eval_source, no labels, or not the same classes.
    """
    if not data.eval_source:
        raise ValueError(
            "data.eval_source is empty; give --config with a recipe that has it and "
            "data.source, both with labels"
        )
    first = data.copy_and_resolve_references()
    first.eval_source = first.source
    spec = {
        "image": jax.ShapeDtypeStruct((*size, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((), jnp.int32),
    }
    one, two = (pipeline.eval_stream(part, spec, seed=0) for part in (first, data))
    if apart := difference(one.info, two.info):
        raise ValueError(apart)
    return one, two


def fill(encode: Encode, stream: EvalStream, mesh: Mesh) -> Bank:
    """Encodes a split; tells on stderr how far it is and what it skipped."""
    count, filled = stream.info.num_examples, 0
    labels, index = np.empty((2, count), np.int64)
    batches = track(
        stream.batches(),
        escape(f"encoding {one_line(stream.info.name)}"),
        stream.steps_per_epoch,
        console=Console(stderr=True),
    )
    for step, batch in enumerate(batches):
        image = sharding.put_batch({"image": batch["image"]}, mesh)["image"]
        made = jax.device_get(encode(image))
        if not step:
            features = np.empty((len(made), count, made.shape[-1]), np.float32)
        real = np.flatnonzero(batch["weight"])
        rows = slice(filled, filled + len(real))
        features[:, rows] = made[:, real]
        labels[rows] = batch["label"][real]
        index[rows] = batch["index"][real]
        filled = rows.stop
    for note in stream.notes:
        print(f"note: {note}", file=sys.stderr)
    for sentence in stream.ledger.sentences.values():
        print(f"skipped: {sentence}", file=sys.stderr)
    return Bank(features[:, :filled], labels[:filled], index[:filled], stream)
