"""Images/s and masks/s of the input pipeline, beside the official one's.

    python benchmarks/input_pipeline.py [--peer [FOLDER]] [--data FOLDER] [--quick]

Measures digits at 32 px from memory; photograph-sized JPEGs in several settings, each
with a 224-px view, a 112-px token view and a blockwise mask; and masks alone, on one
core. The JPEGs are crops of 500x375 of the two photographs that come with scikit-learn
unless --data names others. --peer measures benchmarks/official_loader.py in turn with
ours, in an environment of its own, made in FOLDER if there is none (pip must find a
torch without CUDA: PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL tell it where). --quick is for
tests: its numbers mean nothing. Prints one JSON line a measurement, then a table of
medians. Needs Linux, for pinning to a core.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import PIL
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images

from beit_jax.data import draws, pipeline
from beit_jax.data.ops import colour, decode, geometry, masking

ON_DEVICE = {"jitter": 0.4, "jitter_on": "device"}
FAST = {"augment": ON_DEVICE | {"token_view": "first_view"}}
# Name of a setting -> what it changes in `config.data`.
SETTINGS = {
    "faithful": {"augment": {"jitter": 0.4}},
    "jitter on device": {"augment": ON_DEVICE},
    "fast": FAST | {"dct_scaled": True},
    "fast, kept decoded": FAST | {"decoded_cache_gib": 8.0},
}
MASKS = "blockwise masks of 14x14 on one core, masks/s"
MASK_BATCHES = (128, 1024)
OFFICIAL = "official"
LOADER = pathlib.Path(__file__).with_name("official_loader.py")
PEER = pathlib.Path(tempfile.gettempdir()) / "beit_jax_official_loader"
QUALITY = 97  # gives files about as large as ImageNet's
WARM_UP = 5  # batches


class Worker:
    """A process that answers each line with a line of JSON."""

    def __init__(self, *command):
        self.command = [str(part) for part in command]
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, *line) -> dict[str, float]:
        print(*line, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.command} ended; what it said is above")
        return json.loads(answer)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def peer_python(folder: pathlib.Path) -> pathlib.Path:
    """The interpreter of the peer's environment, which is made if there is none."""
    python = folder / "bin" / "python"
    if python.exists():
        return python
    same = [f"pillow=={PIL.__version__}", f"numpy=={np.__version__}"]
    try:
        venv.create(folder, with_pip=True)
        command = [python, "-m", "pip", "install", "-q", "torch==2.13.0+cpu", *same]
        subprocess.run(command, check=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # half of one would be taken as whole
        raise
    return python


def write_photographs(folder: pathlib.Path, count: int) -> None:
    """`count` JPEGs of 500x375, random crops of real photographs."""
    rng = np.random.default_rng(0)
    photographs = load_sample_images().images
    for i in range(count):
        photograph = photographs[i % len(photographs)]
        y = rng.integers(photograph.shape[0] - 375 + 1)
        x = rng.integers(photograph.shape[1] - 500 + 1)
        crop = Image.fromarray(photograph[y : y + 375, x : x + 500])
        crop.save(folder / f"{i:04d}.jpg", quality=QUALITY)


def train_stream(source: dict, sizes: tuple[int, int, int], batch_size: int, **changes):
    """The stream of a pre-training run on `source`.

    Args:
      sizes: pixels of the view and of the tokenizer's; patches across the mask.
      changes: of `config.data`.
    """
    size, token_size, grid = sizes
    spec = {
        "image": jax.ShapeDtypeStruct((size, size, 3), jnp.uint8),
        "token_image": jax.ShapeDtypeStruct((token_size, token_size, 3), jnp.uint8),
        "mask": jax.ShapeDtypeStruct((grid, grid), jnp.bool_),
    }
    if changes.get("augment", {}).get("jitter_on") == "device":
        spec["jitter"] = jax.ShapeDtypeStruct((3, 2), jnp.float32)
    most = round(grid * grid * 75 / 196)
    mask = {"name": "blockwise", "max_patches": most, "min_block": max(most // 5, 1)}
    config = {"batch_size": batch_size, "source": source, "mask": mask, **changes}
    return pipeline.train_stream(config, spec, seed=0)


def images_per_second(stream, count: int, batch_size: int) -> dict[str, float]:
    """Over `count` batches of a stream that runs already."""
    iterator = stream.batches(0)
    for _ in range(WARM_UP):
        next(iterator)
    begun = time.perf_counter()
    for _ in range(count):
        next(iterator)
    rate = count * batch_size / (time.perf_counter() - begun)
    iterator.close()  # nothing is made ahead while others are measured
    return {"images_per_second": rate}


def serve_masks(core: int) -> None:
    """Answers "BATCH_SIZE SECONDS" with masks/s on one core."""
    os.sched_setaffinity(0, {core})
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

    def masks(first, batch_size):
        counter = first + tf.range(batch_size, dtype=tf.int64)
        return masking.blockwise(draws.stream(0, "mask", counter), batch_size)

    graph, zero = tf.function(masks, autograph=False), tf.constant(0, tf.int64)
    for line in sys.stdin:
        batch_size, seconds = int(line.split()[0]), float(line.split()[1])
        draw = graph.get_concrete_function(zero, batch_size)
        draw(zero)
        count, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            draw(tf.constant(count, tf.int64))
            count += batch_size
        rate = count / (time.perf_counter() - begun)
        print(json.dumps({"masks_per_second": rate}), flush=True)


def stages(paths: list[pathlib.Path], count: int) -> dict[str, float]:
    """Milliseconds an image for each part of the work, in one thread.

    Those of the faithful setting, and in brackets what other settings do instead.
    """
    rng, spent = np.random.default_rng(0), defaultdict(float)

    def timed(name, function, *inputs):
        begun = time.perf_counter()
        made = function(*inputs)
        spent[name] += 1000 * (time.perf_counter() - begun) / count
        return made

    for i in range(count):
        data = timed("read", paths[i % len(paths)].read_bytes)
        image = timed("open", decode.open_image, data)
        image = timed("decode", decode.to_rgb, image)
        steps = colour.jitter_steps(0.4, rng.random(colour.NUMBERS))
        u = rng.random(geometry.BOX_NUMBERS)
        box = timed("draw the crop", geometry.random_box, u, image.height, image.width)
        timed("[crop alone]", geometry.crop, image, box)
        cut = timed("jitter and crop", colour.apply_then_crop, image, steps, box)
        bicubic, lanczos = (geometry.FILTERS[name] for name in ("bicubic", "lanczos"))
        large = timed("resize to 224", geometry.resize, cut, (224, 224), bicubic)
        small = timed("resize to 112", geometry.resize, cut, (112, 112), lanczos)
        timed("[112 from 224]", geometry.resize, large, (112, 112), lanczos)
        arrays = [timed("to arrays", np.asarray, view) for view in (large, small)]
        for array in arrays:
            timed("copy", array.copy)
    return dict(spent)


class Report:
    """Prints measurements as they come, and their medians at the end."""

    def __init__(self):
        self.rates = defaultdict(lambda: defaultdict(list))

    def add(self, what: str, name: str, rate: dict[str, float]) -> None:
        (value,) = rate.values()
        self.rates[what][name].append(value)
        rate = {unit: round(value, 1) for unit, value in rate.items()}
        print(json.dumps({"what": what, "setting": name} | rate), flush=True)

    def median(self, what: str, name: str) -> float:
        return statistics.median(self.rates[what].get(name, [math.nan]))

    def table(self) -> None:
        for what, rates in self.rates.items():
            print(f"\n{what}\n{'':20} {'median':>9} {'least':>9} {'most':>9}    ratio")
            for name, values in rates.items():
                median = self.median(what, name)
                row = " ".join(f"{x:9.1f}" for x in (median, min(values), max(values)))
                ratio = median / self.median(what, OFFICIAL)
                print(f"{name:20} {row} {ratio:8.2f}".replace("nan", "  -"))


def measure_images(report: Report, args, folder: pathlib.Path, python) -> None:
    size = (224, 112, 14), args.batch_size
    source = {"name": "folder", "path": str(folder)}
    streams = {name: train_stream(source, *size, **s) for name, s in SETTINGS.items()}
    digits = train_stream({"name": "digits"}, (32, 32, 8), 128)
    cores = len(os.sched_getaffinity(0))
    options = "--workers", cores, "--batch-size", args.batch_size
    peer = contextlib.nullcontext()
    if python:
        peer = contextlib.closing(Worker(python, LOADER, folder, *options))
    with peer as official:
        for _ in range(args.rounds):
            rate = images_per_second(digits, args.batches, 128)
            report.add("digits, images/s, batch 128", "32 px", rate)
            what = f"JPEG to 224 + 112 px, images/s, batch {args.batch_size}"
            for name, stream in streams.items():
                rate = images_per_second(stream, args.batches, args.batch_size)
                report.add(what, name, rate)
            if official:
                report.add(what, OFFICIAL, official.ask("images", args.batches))
        if official:
            show_stages(OFFICIAL, official.ask("stages", args.stage_images))


def measure_masks(report: Report, args, python) -> None:
    core = max(os.sched_getaffinity(0))
    ours = Worker(sys.executable, __file__, "--masks-on-core", core)
    official = Worker(python or sys.executable, LOADER, ".", "--core", core)
    with contextlib.closing(ours), contextlib.closing(official):
        for _ in range(args.rounds):
            for batch_size in MASK_BATCHES:
                rate = ours.ask(batch_size, args.mask_seconds)
                report.add(MASKS, f"batch {batch_size}", rate)
            report.add(MASKS, OFFICIAL, official.ask("masks", args.mask_seconds))


def show_stages(whose: str, milliseconds: dict[str, float]) -> None:
    rounded = {name: round(value, 3) for name, value in milliseconds.items()}
    print(json.dumps({"milliseconds_an_image": whose} | rounded), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", help="folder of JPEGs instead of scikit-learn's")
    parser.add_argument("--peer", nargs="?", const=PEER, type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=15)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--masks-on-core", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.photographs, args.batch_size, args.mask_seconds = 256, 64, 2.0
    args.stage_images = 200
    if args.quick:
        args.photographs, args.batch_size, args.mask_seconds = 8, 8, 0.05
        args.stage_images = args.rounds = args.batches = 1
    return args


def main() -> None:
    args = arguments()
    if args.masks_on_core is not None:
        return serve_masks(args.masks_on_core)
    python = peer_python(args.peer) if args.peer else None
    report = Report()
    with tempfile.TemporaryDirectory() as made:
        folder = pathlib.Path(args.data or made)
        if not args.data:
            write_photographs(folder, args.photographs)
        paths = sorted(folder.rglob("*.jpg"))
        mean_kib = statistics.mean(path.stat().st_size for path in paths) / 1024
        print(json.dumps({"photographs": len(paths), "mean_kib": round(mean_kib, 1)}))
        measure_masks(report, args, python)
        mask = 1000 / report.median(MASKS, f"batch {MASK_BATCHES[0]}")
        show_stages("ours", stages(paths, args.stage_images) | {"mask": mask})
        measure_images(report, args, folder, python)
    report.table()


if __name__ == "__main__":
    main()
