"""Photographs, and a classifier of them whose labels depend on how they are shown."""

import functools
import io
import json
import tarfile
from collections.abc import Callable

import jax
import numpy as np
from PIL import Image

from beit_jax.checkpoints.steps import Restored
from beit_jax.run import opened
from beit_jax.run.preprocess import Preprocess
from tests.parity import conversions
from tests.parity.cases import Case
from tests.shared import shared_path

CLASSES, FITTED, SHOWN = 20, 400, 216  # photographs of which the head is made; others
NETWORK = {"dim": 64, "depth": 2, "heads": 4, "layer_scale": 0.5}
PATCHES = {128: 16, 32: 4}  # of images of so many pixels


@functools.cache
def photos(split: str, count: int) -> tuple[list[Image.Image], np.ndarray]:
    """So many photographs of Caltech-101 at their own sizes, and their classes (n,)."""
    with tarfile.open(shared_path("data/caltech20a/caltech20a.tar")) as tar:
        names = sorted(n for n in tar.getnames() if f"/{split}/" in n and ".jp" in n)
        names = names[:: max(1, len(names) // count)][:count]
        folders = [name.split("/")[-2] for name in names]
        read = [tar.extractfile(name).read() for name in names]
    images = [Image.open(io.BytesIO(content)).convert("RGB") for content in read]
    return images, np.unique(folders, return_inverse=True)[1]


@functools.cache
def classifier(side: int, pixels: str = "imagenet", **data: str) -> Restored:
    """A random encoder with a head fitted to its features by ridge regression.

    Args:
      data: of the section `data` of its config, as JSON.
    """
    model = NETWORK | {"patch_size": PATCHES[side], "rel_pos_bias": "per_block"}
    case = Case("transformers", "mean", model, (side, side), CLASSES, seed=41)
    said = {name: json.loads(section) for name, section in data.items()}
    saved = conversions.checkpoint(case, pixels, **said)
    images, labels = photos("train", FITTED)
    # With the identity as its head the network gives the features.
    size, kind = model["dim"], np.float32
    identity = {"kernel": np.eye(size, dtype=kind), "bias": np.zeros(size, kind)}
    bare = conversions.checkpoint(case._replace(outputs=size), pixels, **said)
    bare = bare._replace(params=saved.params | {"head": identity})
    features = logits(bare, Preprocess(bare.card)(images))
    mean = features.mean(0)
    centred = features - mean
    squares = centred.T @ centred
    inverse = np.linalg.inv(squares + np.trace(squares) / size * np.eye(size))
    wanted = np.eye(CLASSES)[labels]
    fitted = inverse @ centred.T @ (wanted - wanted.mean(0))
    head = {"kernel": fitted, "bias": wanted.mean(0) - mean @ fitted}
    head = {name: x.astype(np.float32) for name, x in head.items()}
    return saved._replace(params=saved.params | {"head": head})


def logits(saved: Restored, images) -> np.ndarray:
    """(B, C) of prepared images."""
    module, variables = opened.Opened(saved).network()
    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(module.apply)(variables, images))


def changed(saved: Restored, prepare: Callable[[Image.Image], np.ndarray]) -> float:
    """The share of the photographs that get another label than in our evaluation.

    Args:
      prepare: another tool's preparation, an image -> (3, H, W).
    """
    images, _ = photos("val", SHOWN)
    ours = logits(saved, Preprocess(saved.card)(images)).argmax(1)
    theirs = np.stack([prepare(image) for image in images]).transpose(0, 2, 3, 1)
    return float(np.mean(logits(saved, theirs).argmax(1) != ours))
