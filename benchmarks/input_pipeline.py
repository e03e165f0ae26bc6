"""Images/s that the input pipeline delivers, and masks/s, on all cores of this host.

    python benchmarks/input_pipeline.py [--data FOLDER_OR_TAR]

Measures digits at 32 px from memory, 224-px views of photograph-sized JPEGs (with a
112-px token view and a blockwise mask), and masks alone. The JPEGs are crops of 500x375
of the two photographs that come with scikit-learn unless --data names others. Prints
one JSON line a measurement.
"""

import argparse
import json
import pathlib
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images

from beit_jax.data import draws, masking, pipeline


def write_photographs(folder: pathlib.Path, count: int = 256) -> None:
    """`count` JPEGs of 500x375, quality 90, random crops of real photographs."""
    rng = np.random.default_rng(0)
    photographs = load_sample_images().images
    for i in range(count):
        photograph = photographs[i % len(photographs)]
        y = rng.integers(photograph.shape[0] - 375 + 1)
        x = rng.integers(photograph.shape[1] - 500 + 1)
        crop = Image.fromarray(photograph[y : y + 375, x : x + 500])
        crop.save(folder / f"{i:04d}.jpg", quality=90)


def rate(stream, batches: int, batch_size: int) -> float:
    """Examples/s over `batches` batches, after three that warm up."""
    iterator = stream.batches(0)
    for _ in range(3):
        next(iterator)
    begun = time.perf_counter()
    for _ in range(batches):
        next(iterator)
    return round(batches * batch_size / (time.perf_counter() - begun), 1)


def pretraining(source: dict, size: int, view: int, grid: int, batch_size: int):
    """The stream of a pre-training run on `source`."""
    spec = {
        "image": jax.ShapeDtypeStruct((size, size, 3), jnp.uint8),
        "token_image": jax.ShapeDtypeStruct((view, view, 3), jnp.uint8),
        "mask": jax.ShapeDtypeStruct((grid, grid), jnp.bool_),
    }
    most = round(grid * grid * 75 / 196)
    mask = {"name": "blockwise", "max_patches": most, "min_block": max(most // 5, 1)}
    settings = {"batch_size": batch_size, "source": source, "mask": mask}
    return pipeline.train_stream(settings, spec, seed=0)


def masks_per_second(batch_size: int, seconds: float = 3.0) -> float:
    """Official masks: at most 75 of 14x14 patches."""

    @tf.function
    def masks(first):
        counter = first + tf.range(batch_size, dtype=tf.int64)
        draw = draws.stream(0, "mask", counter)
        return masking.blockwise(draw, batch_size, (14, 14), 75, 16)

    masks(tf.constant(0, tf.int64))
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        masks(tf.constant(count, tf.int64))
        count += batch_size
    return round(count / (time.perf_counter() - begun), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="images instead of scikit-learn's photographs")
    parser.add_argument("--batches", type=int, default=10)
    args = parser.parse_args()

    digits = pretraining({"name": "digits"}, 32, 32, 8, 128)
    told = {"what": "digits 32 px, batch 128"}
    print(json.dumps(told | {"images_per_second": rate(digits, 100, 128)}))
    with tempfile.TemporaryDirectory() as folder:
        if not args.data:
            write_photographs(pathlib.Path(folder))
        source = {"name": "folder", "path": args.data or folder}
        photographs = pretraining(source, 224, 112, 14, 64)
        told = {"what": "JPEG -> 224 + 112 px, batch 64", "data": args.data}
        images = rate(photographs, args.batches, 64)
        print(json.dumps(told | {"images_per_second": images}))
    for batch_size in (128, 1024):
        told = {"what": f"blockwise masks of 14x14, batch {batch_size}"}
        print(json.dumps(told | {"masks_per_second": masks_per_second(batch_size)}))


if __name__ == "__main__":
    main()
