"""A loss that is not finite, at every step of a run.

    python benchmarks/faults/not_finite.py [--steps 50]

Trains a small classifier on synthetic images with one example of one step spoilt (NaN
and infinity in turn), once for every step. Where one step may be left out, all that is
saved must be finite and one step counted; where none may, the run must end, and what
was saved before must be finite. Prints rows of a markdown table.
"""

import argparse
import pathlib
import shutil
import sys
import tempfile
import time
from unittest import mock

import numpy as np

from beit_jax import process
from beit_jax.data import pipeline
from beit_jax.run.writer import history
from beit_jax.train import train

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from tests import tiny

REAL = pipeline.Stream.batches


def spoilt(at: int, value: float):
    """`Stream.batches` with an example of step `at` weighed by `value`."""

    def batches(self, first_step=0, shard=(0, 1)):
        for step, batch in enumerate(REAL(self, first_step, shard), first_step + 1):
            if step == at:
                batch["weight"] = batch["weight"].copy()
                batch["weight"][at % len(batch["weight"])] = value
            yield batch

    return mock.patch.object(pipeline.Stream, "batches", batches)


def one(steps: int, at: int, allowed: int) -> bool:
    """Whether a run with a bad step did what it must."""
    workdir = pathlib.Path(tempfile.mkdtemp())
    changes = {"steps": steps, "epochs": None, "optim__max_left_out": allowed}
    changes |= {"log__every_steps": 10, "checkpoint__every_steps": 10}
    config = tiny.config("classify", checkpoint__keep=steps, **changes)
    ended = False
    with spoilt(at, np.nan if at % 2 else np.inf):
        try:
            train(config, workdir, quiet=True)
        except FloatingPointError:
            ended = True
    saved = [tiny.arrays(workdir, step) for step in tiny.saved_steps(workdir)]
    finite = all(np.isfinite(x).all() for arrays in saved for x in arrays.values())
    told = sum(values.get("train/steps_left_out", 0) for _, values in history(workdir))
    shutil.rmtree(workdir)
    return finite and (told == 1 and not ended if allowed else ended)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--allowed", default="1,0", help="optim.max_left_out")
    options = parser.parse_args()
    steps, wrong = options.steps, 0
    process.keep_compiled()
    for allowed in map(int, options.allowed.split(",")):
        what = "left out and counted" if allowed else "the run ends"
        begun = time.perf_counter()
        good = sum(one(steps, at, allowed) for at in range(1, steps + 1))
        wrong += steps - good
        seconds = time.perf_counter() - begun
        print(
            f"| NaN or Inf at each of {steps} steps, {what} | {good} of {steps}, "
            f"nothing that is saved is not finite | {seconds:.0f} s |",
            flush=True,
        )
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
