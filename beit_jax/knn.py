r"""Nearest neighbours on frozen features: `python -m beit_jax.knn --checkpoint C …`.

Tells the classes of the images of data.eval_source by those of data.source, with the
features of every block of an encoder; nothing is trained. Writes knn.json and
neighbours.png to --workdir. Encoder and pixel space are the checkpoint's; the data are
a recipe's with --config, else the checkpoint's. `--checkpoint untrained` is the
control: random weights of the recipe's model.

    python -m beit_jax.knn --checkpoint runs/cifar10/pretrain \
        --config configs/cifar10_finetune.py:all_labels --workdir runs/cifar10/knn
"""

import functools
import json
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from beit_jax import command, sharding
from beit_jax import config as config_lib
from beit_jax.charts import neighbours as chart
from beit_jax.checkpoints.steps import Restored
from beit_jax.run import card, opened
from beit_jax.run.bank import Bank, encoding, fill, splits
from beit_jax.run.opened import Opened
from beit_jax.stores import on_disk
from beit_jax.targets.tokens import UNTRAINED
from beit_jax.tasks import encoders
from beit_jax.text import UTF8

_SIMILARITIES = 2**26  # of queries to images, computed in one go: 256 MiB
_SHOWN = 8  # queries in the picture, and neighbours of each


def nearest(
    memory: np.ndarray, queries: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Similarities (q, k), falling, and row numbers (q, k) of `memory` (n, F).

    Features have length 1; of equal neighbours the first in memory comes first.
    """
    memory = jnp.asarray(memory)
    chunk = max(1, _SIMILARITIES // len(memory))
    found = [
        jax.device_get(_nearest(memory, queries[first : first + chunk], k))
        for first in range(0, len(queries), chunk)
    ]
    similarity, rows = map(np.concatenate, zip(*found, strict=True))
    return similarity, rows


@functools.partial(jax.jit, static_argnames="k")
def _nearest(memory, queries, k):
    return jax.lax.top_k(jnp.matmul(queries, memory.T, precision="highest"), k)


def vote(
    similarity: np.ndarray, labels: np.ndarray, classes: int, temperature: float
) -> np.ndarray:
    """(q, k) neighbours -> (q, C) float64: each votes with exp(similarity / T).

    As in DINO (arXiv:2104.14294), but for a factor of each query's own.
    """
    first = similarity[:, :1].astype(np.float64)  # keeps exp from overflowing
    votes = np.zeros((len(labels), classes))
    queries = np.arange(len(labels))[:, None]
    np.add.at(votes, (queries, labels), np.exp((similarity - first) / temperature))
    return votes


def accuracies(votes: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Top-1 and top-5; a class without a vote is no guess, and ties go to the first."""
    best = np.argsort(-votes, axis=1, kind="stable")[:, :5]
    voted = np.take_along_axis(votes, best, axis=1) > 0
    hit = (best == labels[:, None]) & voted
    return float(hit[:, 0].mean()), float(hit.any(1).mean())


def score(memory: Bank, queries: Bank, k: int, temperature: float) -> dict[str, Any]:
    """top1 and top5 of every block, and the block with the best top1."""
    top1, top5 = [], []
    for theirs, ours in zip(memory.features, queries.features, strict=True):
        similarity, rows = nearest(theirs, ours, k)
        labels, classes = memory.labels[rows], len(memory.class_names)
        votes = vote(similarity, labels, classes, temperature)
        first, any_of_five = accuracies(votes, queries.labels)
        top1.append(first)
        top5.append(any_of_five)
    best = int(np.argmax(top1))
    return {"best_block": best, "best_top1": top1[best], "top1": top1, "top5": top5}


def picture(memory: Bank, queries: Bank, block: int, k: int) -> np.ndarray:
    """(H, W, 3) uint8: queries from all over the split with their neighbours."""
    last = len(queries.labels) - 1
    chosen = np.unique(np.linspace(0, last, _SHOWN).astype(int))
    features = queries.features[block][chosen]
    _, rows = nearest(memory.features[block], features, min(k, _SHOWN))
    names = np.array(memory.class_names)
    return chart.draw(
        queries.images(chosen),
        names[queries.labels[chosen]],
        memory.images(rows),
        names[memory.labels[rows]],
    )


def untrained(config: ConfigDict | None) -> Opened:
    """The encoder of a fine-tuning recipe, with random weights from its seed."""
    if config is None:
        raise ValueError(
            f"{UNTRAINED!r} are random weights of a recipe's model: give --config"
        )
    encoder, size, _ = encoders.build(config, final_norm=False)
    image = jnp.zeros((1, *size, 3))
    made = nn.unbox(jax.jit(encoder.init)(jax.random.key(config.seed), image))
    params = {"encoder": made["params"]}
    path = pathlib.Path(UNTRAINED)
    return Opened(Restored(path, params, {}, config.to_dict(), {}, {}))


def knn(
    path: str | pathlib.Path,
    config: ConfigDict | None = None,
    workdir: str | pathlib.Path | None = None,
    features: str = "concat",
    k: int = 20,
    temperature: float = 0.07,
    block: int | None = None,
) -> dict[str, Any]:
    """Accuracies of every block of a checkpoint's encoder.

    The features of both splits are held in memory: blocks x images x F floats.

    Args:
      path: any checkpoint, see checkpoints/read.py, or "untrained".
      config: whose `data` to use instead of the checkpoint's; untrained, its model too.
      workdir: for knn.json and neighbours.png; None: nothing is written.
      features: one of `encoders.FEATURES`.
      k: neighbours that vote.
      temperature: of the votes.
      block: whose neighbours to draw; None: those of the best one.

    Returns:
      What knn.json holds: what `score` gives, and how it was reached. The best block
      is chosen on the very queries, as by the official linear probe.

    Raises:
      ValueError: settings, a checkpoint or data that cannot be used.
    """
    workdir = None if workdir is None else on_disk(workdir, "--workdir")
    seen = untrained(config) if path == UNTRAINED else opened.open(path)
    mesh = sharding.make_mesh({"data": -1})
    encode = encoding(seen, features, mesh)
    config = config or seen.config
    config_lib.check(config)
    card.check_data(seen.saved, config.data)
    sharding.check_batch_size(config.data.batch_size, mesh)
    streams = splits(config.data, seen.encoder.size)
    blocks = seen.encoder.module.depth
    _check(k, streams[0].info.num_examples, temperature, block, blocks)
    with jax.set_mesh(mesh):
        memory, queries = (fill(encode, stream, mesh) for stream in streams)
    told = {
        "checkpoint": str(seen.saved.path),
        "features": features,
        "k": k,
        "temperature": temperature,
        "memory": len(memory.labels),
        "queries": len(queries.labels),
        **score(memory, queries, k, temperature),
    }
    if workdir is not None:
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "knn.json").write_text(json.dumps(told, indent=2) + "\n", **UTF8)
        shown = told["best_block"] if block is None else block
        drawn = picture(memory, queries, shown, k)
        Image.fromarray(drawn).save(workdir / "neighbours.png")
    return told


def _check(
    k: int, images: int, temperature: float, block: int | None, blocks: int
) -> None:
    if not 1 <= k <= images or temperature <= 0:
        raise ValueError(
            f"k={k} must be in 1..{images}, the number of images in data.source, and "
            f"temperature={temperature} above 0"
        )
    if block is not None and not 0 <= block < blocks:
        raise ValueError(f"no block {block}: blocks are 0..{blocks - 1}")


def main(options) -> None:
    told = knn(
        options.checkpoint,
        options.config,
        options.workdir,
        options.features,
        options.k,
        options.temperature,
        options.block,
    )
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    command.run("knn", main)
