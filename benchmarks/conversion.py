"""Time and memory of converting checkpoints of full size, with random weights.

python benchmarks/conversion.py [--folder DIR]

Prints a row for each network and direction: the file's size, seconds of the whole
command `python -m beit_jax.convert`, its peak memory beyond that of the same command on
a tiny network, and that in sizes of the file. Official files are .pth where PyTorch is
installed, else .safetensors. Needs some 10 GB in DIR.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import flax.linen as nn
import jax
import numpy as np

from beit_jax import config as config_lib
from beit_jax import tasks
from beit_jax.checkpoints import write
from beit_jax.checkpoints.steps import Restored
from beit_jax.run import card

TOKENS = {"name": "tokens", "checkpoint": "untrained", "untrained": {"vocab": 8192}}
PRETRAIN = {"name": "pretrain", "target": TOKENS}
CLASSIFY = {"name": "classify", "classes": 1000}
NETWORKS = {  # name -> task, variant, size of images
    "tiny": (CLASSIFY | {"classes": 10}, "tiny", 32),
    "beit_base_patch16_224_pt22k": (PRETRAIN, "base", 224),
    "beit_base_patch16_224_ft22kto1k": (CLASSIFY, "base", 224),
    "beit_large_patch16_512_ft22kto1k": (CLASSIFY, "large", 512),
}
SUFFIX = ".pth" if importlib.util.find_spec("torch") else ".safetensors"


def random_checkpoint(name: str) -> Restored:
    task, variant, size = NETWORKS[name]
    config = config_lib.new(
        epochs=0.0,
        task=task,
        model={"variant": variant, "preset": "released", "image_size": size},
        data={"mask": {"name": "blockwise", "max_patches": 75}},
    )
    built = tasks.build(config)
    image = {"image": np.zeros((1, size, size, 3), np.uint8)}
    shapes = jax.eval_shape(lambda: nn.unbox(built.init(jax.random.key(0), image)))
    rng = np.random.default_rng(0)

    def draw(leaf):
        return rng.standard_normal(leaf.shape, np.float32)

    params = jax.tree.map(draw, shapes["params"])
    return Restored(
        path=pathlib.Path(name),
        step=0,
        params=params,
        model_state={},
        config=json.loads(config.to_json()),
        position={"step": 0},
        card=card.of(config, built, class_names=()),
    )


def convert(source: pathlib.Path, made: pathlib.Path, to: str) -> tuple[float, int]:
    """Seconds, and peak memory in bytes, of the command."""
    command = [sys.executable, "-m", "beit_jax.convert", str(source), str(made)]
    begun = time.perf_counter()
    child = subprocess.Popen([*command, f"--to={to}"], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{command} failed")
    return time.perf_counter() - begun, used.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="where files are made, and deleted after")
    args = parser.parse_args()
    print("| network | parameters | from → to | MB | s | peak, MB | peak / file |")
    print("|---|---|---|---|---|---|---|")
    least = {}
    for name in NETWORKS:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            folder = pathlib.Path(folder)
            saved = random_checkpoint(name)
            count = sum(leaf.size for leaf in jax.tree.leaves(saved.params))
            official = folder / f"{name}{SUFFIX}"
            write.write(saved, official, "official")
            del saved
            ways = [(official, "orbax"), (folder / "orbax", "hf")]
            ways += [(folder / "hf", "orbax"), (folder / "orbax", "official")]
            for number, (source, to) in enumerate(ways):
                made = folder / to
                if to == "official" or made.exists():
                    made = folder / f"{number}{SUFFIX if to == 'official' else ''}"
                seconds, peak = convert(source, made, to)
                way = f"{source.suffix or source.name} → {to}"
                least.setdefault(way, peak)
                size = official.stat().st_size
                print(
                    f"| {name} | {count:,} | {way} | {size / 1e6:.0f} | {seconds:.1f} "
                    f"| {(peak - least[way]) / 1e6:.0f} "
                    f"| {(peak - least[way]) / size:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
