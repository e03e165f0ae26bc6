"""Images/s, compile time and memory of the pre-training step, tokenizer included.

    python benchmarks/step.py [--model tiny|base] [--batch N] [--dtype bfloat16] …

The batch is random and stays on the device; the input pipeline is measured by
input_pipeline.py. Prints one JSON line a measurement.
"""

import argparse
import json
import resource
import time

import jax
import numpy as np

from beit_jax import config as c
from beit_jax import sharding, state, step, summary, tasks

MODELS = {
    "tiny": {"image_size": 32, "patch_size": 4, "dim": 96, "depth": 4, "heads": 4},
    "base": {"image_size": 224, "patch_size": 16, "dim": 768, "depth": 12, "heads": 12},
}
MASKS = {"tiny": 25, "base": 75}
BATCHES = {"tiny": 128, "base": 8}


def recipe(model: str, batch: int, dtype: str, unroll: int, remat: bool):
    vocab = 8192 if model == "base" else 64
    return c.new(
        steps=1000,
        dtype=dtype,
        task={
            "name": "pretrain",
            "target": {
                "name": "vqvae",
                "checkpoint": "untrained",
                "untrained": {"vocab": vocab, "width": 64, "code_dim": 16},
            },
        },
        model=MODELS[model] | {"drop_path": 0.1, "unroll": unroll, "remat": remat},
        data={
            "batch_size": batch,
            "mask": {"name": "blockwise", "max_patches": MASKS[model]},
        },
    )


def random_batch(task, size: int) -> dict[str, np.ndarray]:
    """Noise for images and 40 % masked patches."""
    rng = np.random.default_rng(0)
    batch = {"weight": np.ones(size, np.float32)}
    for name, spec in task.example_spec.items():
        shape = (size, *spec.shape)
        if name == "mask":
            batch[name] = rng.random(shape) < 0.4
        else:
            batch[name] = rng.integers(0, 256, shape).astype(spec.dtype)
    return batch


def measure(config, steps: int) -> dict[str, float]:
    """Runs `steps` steps after one that compiles."""
    mesh = sharding.make_mesh(config.mesh)
    task = tasks.build(config)
    batch = random_batch(task, config.data.batch_size)
    plan = c.Plan(config.steps, 100, 1, 0, 0)
    with jax.set_mesh(mesh):
        now, shardings, tx = state.create(task, config, plan, mesh, batch)
        frozen = jax.device_put(task.load_frozen(), sharding.replicated(mesh))
        update = step.make_update(task, tx, config, plan, shardings, mesh)
        batch = sharding.put_batch(batch, mesh)
        flops = summary.count_flops(update, now, frozen, batch)
        begun = time.perf_counter()
        now, sums = update(now, frozen, batch)
        jax.block_until_ready(sums)
        compiled = time.perf_counter() - begun
        seconds = []
        for _ in range(steps):
            begun = time.perf_counter()
            now, sums = update(now, frozen, batch)
            jax.block_until_ready((now, sums))
            seconds.append(time.perf_counter() - begun)
    size = config.data.batch_size
    return {
        "images_per_second_median": round(size / float(np.median(seconds)), 2),
        "images_per_second_best": round(size / min(seconds), 2),
        "gflop_per_image": round(flops / size / 1e9, 3),
        "tflops_median": round(flops / float(np.median(seconds)) / 1e12, 4),
        "first_step_seconds": round(compiled, 1),
        "peak_rss_gib": round(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="tiny")
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--unroll", type=int, default=1)
    parser.add_argument("--remat", action="store_true")
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    batch = args.batch or BATCHES[args.model]
    config = recipe(args.model, batch, args.dtype, args.unroll, args.remat)
    told = vars(args) | {"batch": batch, "device": jax.devices()[0].device_kind}
    print(json.dumps(told | measure(config, args.steps)))


if __name__ == "__main__":
    main()
