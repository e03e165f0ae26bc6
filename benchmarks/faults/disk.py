"""A disk that is full, read-only or gone from one moment on, at many moments of a run.

    python benchmarks/faults/disk.py --disk DIR [--points 20] [--only full,gone]

DIR is an empty folder on a small file system of its own, which this fills:
`mount -t tmpfs -o size=60m tmpfs DIR`. A short training runs there (root's without
its right to write where nobody may); when it has told its loss so many times, something
happens to DIR. The run must end with exit code 74 and a sentence, all
steps that had been saved must be whole, and once DIR is mended the same command must go
on to the end. Prints rows of a markdown table.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import time

from beit_jax.checkpoints import hashes

STORAGE = 74
MERE = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
PATIENCE = 120  # seconds
RECIPE = pathlib.Path(__file__).parents[2] / "configs" / "digits_finetune.py"
SETTINGS = ["steps=400", "log.every_steps=5", "checkpoint.every_steps=20"]
SETTINGS += ["eval.every_steps=0", "init_from="]


def command(workdir: pathlib.Path) -> list[str]:
    changes = [f"--config.{setting}" for setting in SETTINGS]
    run = [sys.executable, "-m", "beit_jax.train", f"--config={RECIPE}:tiny"]
    run += [f"--workdir={workdir}", *changes]
    return run if os.geteuid() else MERE + run


def reports(workdir: pathlib.Path) -> int:
    file = workdir / "metrics.jsonl"
    return file.read_bytes().count(b"train/loss") if file.exists() else 0


def saved(workdir: pathlib.Path) -> set[pathlib.Path]:
    return {p.parent for p in workdir.glob(f"checkpoints/*/{hashes.COMMITTED}")}


def fill(path: pathlib.Path) -> None:
    """Writes until nothing more goes."""
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def permit(disk: pathlib.Path, mode: int) -> None:
    for folder, _, _ in os.walk(disk):
        os.chmod(folder, mode)


def bring_back(disk: pathlib.Path) -> None:
    # A save that had begun has made the folder anew, before the next step noticed.
    shutil.rmtree(disk / "run", ignore_errors=True)
    (disk / "away").rename(disk / "run")


# What happens to the run in DIR/run, and how it is mended.
FAULTS = {
    "full": (lambda disk: fill(disk / "rest"), lambda disk: (disk / "rest").unlink()),
    "read-only": (lambda disk: permit(disk, 0o555), lambda disk: permit(disk, 0o777)),
    "gone": (lambda disk: (disk / "run").rename(disk / "away"), bring_back),
}


def one(disk: pathlib.Path, what: str, point: int) -> str:
    """What went wrong; "" if nothing."""
    workdir, (happen, mend) = disk / "run", FAULTS[what]
    begun = subprocess.Popen(
        command(workdir),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while reports(workdir) < point and begun.poll() is None:
        time.sleep(0.005)
    before = saved(workdir)
    happen(disk)
    try:
        _, told = begun.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        begun.kill()
        return f"hung for {PATIENCE} s"
    finally:
        mend(disk)
    lost = [str(step) for step in before if step.exists() and hashes.fault(step)]
    again = subprocess.run(command(workdir), capture_output=True, text=True)
    shutil.rmtree(workdir)
    # Threads of libraries may have had their say before, with no end of line.
    last = told.strip().splitlines()[-1]
    if begun.returncode != STORAGE or "error: " not in last:
        return f"exit code {begun.returncode}: {told[-600:]}"
    if lost:
        return f"damaged: {lost}"
    return "" if again.returncode == 0 else f"did not go on: {again.stderr[-600:]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--disk", type=pathlib.Path, required=True)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--only", default=",".join(FAULTS))
    options = parser.parse_args()
    bad = 0
    for what in options.only.split(","):
        begun, good = time.perf_counter(), 0
        for point in range(1, options.points + 1):
            wrong = one(options.disk, what, point)
            good += not wrong
            if wrong:
                print(f"{what}, point {point}: {wrong}", file=sys.stderr, flush=True)
        bad += options.points - good
        print(
            f"| disk {what} at {options.points} moments | {good} of {options.points}: "
            f"exit code {STORAGE}, no saved step lost, goes on | "
            f"{time.perf_counter() - begun:.0f} s |",
            flush=True,
        )
    if bad:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
