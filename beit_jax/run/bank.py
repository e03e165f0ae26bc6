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

from beit_jax import sharding
from beit_jax.data import pipeline
from beit_jax.data.pipeline import EvalStream
from beit_jax.data.sources import difference
from beit_jax.run.opened import Opened
from beit_jax.tasks import encoders
from beit_jax.text import one_line

# (B, H, W, 3) uint8 -> (L, B, F) float32 of every block, each of length 1.
Encode = Callable[[jax.Array], jax.Array]


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


def encoding(opened: Opened, kind: str, mesh: Mesh) -> Encode:
    """Makes features of images, by a checkpoint's encoder.

    Args:
      kind: of features, one of `encoders.FEATURES`.
      mesh: the encoder lies on each of its devices.

    Raises:
      ValueError: there is none in the checkpoint.
    """
    encoder = opened.encoder
    params = jax.device_put(encoder.params, sharding.replicated(mesh))

    @jax.jit
    def encode(params, image):
        image = encoder.space.to_float(image)
        x = encoders.block_features(encoder.module, params, image, kind)
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    return functools.partial(encode, params)


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
    one, two = (
        pipeline.eval_stream(part, spec, 0, again=False) for part in (first, data)
    )
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
