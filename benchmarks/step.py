"""Images/s, compile time and memory of the pre-training step, tokenizer included.

    python benchmarks/step.py [--model tiny|small|base|large] [--batch N]
        [--dtype bfloat16] [--remat dots|full] [--unroll 12] [--tokenizer dvae|none]
    python benchmarks/step.py --sweep base large

The batch is random and stays on the device; the input pipeline is measured by
input_pipeline.py. Prints one JSON line a measurement. --sweep measures those models in
float32 and bfloat16 with every kind of rematerialisation, and unrolled, each in a
process of its own, and prints a markdown table. `--tokenizer none` makes tokens of sums
of pixels, which costs nothing: torch_step.py measures PyTorch on that work.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from beit_jax import config as c
from beit_jax import pages, sharding, tasks
from beit_jax.checkpoints import frozen as frozen_lib
from beit_jax.run import state, step, summary
from beit_jax.targets import TARGETS
from beit_jax.targets.tokens import Tokens

MODELS = {
    "mini": {"image_size": 32, "patch_size": 8, "dim": 96, "depth": 4, "heads": 4},
    "tiny": {"image_size": 32, "patch_size": 4, "dim": 96, "depth": 4, "heads": 4},
    "small": {"image_size": 32, "patch_size": 4, "dim": 192, "depth": 6, "heads": 6},
    "base": {"image_size": 224, "variant": "base", "preset": "released"},
    "large": {"image_size": 224, "variant": "large", "preset": "released"},
}
MASKS = {"mini": 6, "tiny": 25, "small": 25, "base": 75, "large": 75}
BATCHES = {"mini": 128, "tiny": 128, "small": 128, "base": 8, "large": 4}
VOCABS = {"mini": 64, "tiny": 64, "small": 512, "base": 8192, "large": 8192}
REMAT = ("none", "dots", "full")
TOKENIZERS = {
    "vqvae": {"name": "vqvae", "width": 64, "code_dim": 16},
    "dvae": {"name": "dvae", "patch_size": 8, "pixels": "dalle"},  # DALL-E's
}


class Sums(Tokens):
    """Tokens for nothing: the sum of a patch's pixels, modulo the vocabulary."""

    frozen = None

    def __init__(self, grid: tuple[int, int], patch_size: int, vocab: int):
        self.grid, self.patch_size, self.outputs = grid, patch_size, vocab
        self.image_size = (grid[0] * patch_size, grid[1] * patch_size)

    def __call__(self, frozen: None, image: jax.Array) -> jax.Array:
        (h, w), p = self.grid, self.patch_size
        patches = image.astype(jnp.int32).reshape(-1, h, p, w, p, 3)
        return patches.sum((2, 4, 5)).reshape(-1, h * w) % self.outputs


TARGETS["sums"] = Sums


def recipe(args):
    vocab = {"vocab": VOCABS[args.model]}
    target = {"name": "sums"} | vocab
    if args.tokenizer != "none":
        target = {
            "name": "tokens",
            "checkpoint": "untrained",
            "untrained": TOKENIZERS[args.tokenizer] | vocab,
            "dtype": args.dtype,
        }
    settings = {"drop_path": 0.1, "unroll": args.unroll, "remat": args.remat}
    return c.new(
        steps=1000,
        dtype=args.dtype,
        task={"name": "pretrain", "target": target},
        model=MODELS[args.model] | settings,
        data={
            "batch_size": args.batch or BATCHES[args.model],
            "mask": {"name": "blockwise", "max_patches": MASKS[args.model]},
        },
    )


def random_batch(task, size: int) -> dict[str, np.ndarray]:
    """Noise for images and 40 % masked patches."""
    rng = np.random.default_rng(0)
    batch = {"weight": np.ones(size, np.float32)}
    for name, spec in task.train_spec.items():
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
    plan = c.Plan(config.steps, 100, 1, 0)
    with jax.set_mesh(mesh):
        plans = state.abstract(task, config, plan, mesh, batch)
        now = plans.fresh(0)
        frozen = jax.device_put(frozen_lib.load(task.frozen), sharding.replicated(mesh))
        update = step.make_update(task, plans.optimizer, config, plans.shardings, mesh)
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


def sweep(models: list[str], steps: int) -> str:
    """A markdown table; each row is measured in a process of its own."""
    head = ["model, batch", "dtype", "remat", "unroll", "images/s", "first step"]
    rows = [head + ["peak memory"], ["---"] * 7]
    for model, dtype in itertools.product(models, ("float32", "bfloat16")):
        depth = 12 if model == "base" else 24
        for remat, unroll in [*((kind, 1) for kind in REMAT), ("none", depth)]:
            flags = {"model": model, "dtype": dtype, "remat": remat, "unroll": unroll}
            words = [f"--{key}={value}" for key, value in flags.items()]
            command = [sys.executable, __file__, *words, f"--steps={steps}"]
            line = subprocess.run(command, check=True, capture_output=True, text=True)
            got = json.loads(line.stdout)
            print(line.stdout, end="", flush=True)
            rows.append(
                [f"{model}, {got['batch']}", dtype, remat, str(unroll)]
                + [f"{got['images_per_second_median']:.2f}"]
                + [f"{got['first_step_seconds']:.1f} s", f"{got['peak_rss_gib']} GiB"]
            )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def blocks(given: str) -> int | str:
    return given if given == "auto" else int(given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="tiny")
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--unroll", type=blocks, default="auto")
    parser.add_argument("--remat", choices=REMAT, default="none")
    parser.add_argument("--tokenizer", choices=[*TOKENIZERS, "none"], default="vqvae")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--sweep", nargs="+", choices=["base", "large"])
    args = parser.parse_args()
    if args.sweep:
        print(sweep(args.sweep, args.steps))
        return
    config = recipe(args)
    told = {k: v for k, v in vars(args).items() if k != "sweep"} | {
        "batch": config.data.batch_size,
        "device": jax.devices()[0].device_kind,
    }
    print(json.dumps(told | measure(config, args.steps)))


if __name__ == "__main__":
    pages.ask("step.py")  # as `beit train` does
    main()
