"""A disk that is full from one moment on, at many moments of a run.

    python benchmarks/faults/disk.py --disk DIR [--points 20]

DIR is an empty folder on a small file system of its own, which this fills:
`mount -t tmpfs -o size=60m tmpfs DIR`. A short training runs there; when it has told
its loss so many times, a file takes all that is left. The run must end with exit code
74 and a sentence, all steps that had been saved must be whole, and once there is room
again the same command must go on to the end. Prints a row of a markdown table.
"""

import argparse
import pathlib
import shutil
import subprocess
import sys
import time

from beit_jax.checkpoints import hashes

STORAGE = 74
PATIENCE = 120  # seconds
RECIPE = pathlib.Path(__file__).parents[2] / "configs" / "digits_finetune.py"
SETTINGS = ["steps=400", "log.every_steps=5", "checkpoint.every_steps=20"]
SETTINGS += ["eval.every_steps=0", "init_from="]


def command(workdir: pathlib.Path) -> list[str]:
    changes = [f"--config.{setting}" for setting in SETTINGS]
    run = [sys.executable, "-m", "beit_jax.train", f"--config={RECIPE}:tiny"]
    return [*run, f"--workdir={workdir}", *changes]


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


def one(disk: pathlib.Path, point: int) -> str:
    """What went wrong; "" if nothing."""
    workdir, rest = disk / "run", disk / "rest"
    begun = subprocess.Popen(
        command(workdir), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while reports(workdir) < point and begun.poll() is None:
        time.sleep(0.005)
    before = saved(workdir)
    fill(rest)
    try:
        _, told = begun.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        begun.kill()
        return f"hung for {PATIENCE} s"
    finally:
        rest.unlink()
    lost = [str(step) for step in before if step.exists() and hashes.fault(step)]
    again = subprocess.run(command(workdir), capture_output=True, text=True)
    shutil.rmtree(workdir)
    # Threads of libraries may have had their say before.
    last = told.strip().splitlines()[-1]
    if begun.returncode != STORAGE or not last.startswith("error: "):
        return f"exit code {begun.returncode}: {told[-600:]}"
    if lost:
        return f"damaged: {lost}"
    return "" if again.returncode == 0 else f"did not go on: {again.stderr[-600:]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--disk", type=pathlib.Path, required=True)
    parser.add_argument("--points", type=int, default=20)
    options = parser.parse_args()
    begun, good = time.perf_counter(), 0
    for point in range(1, options.points + 1):
        wrong = one(options.disk, point)
        good += not wrong
        if wrong:
            print(f"point {point}: {wrong}", file=sys.stderr, flush=True)
    print(
        f"| disk full at {options.points} moments | {good} of {options.points}: exit "
        f"code {STORAGE}, no saved step lost, goes on | "
        f"{time.perf_counter() - begun:.0f} s |"
    )
    if good < options.points:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
