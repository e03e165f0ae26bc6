"""Changes how many processes a run has, and lets one of two fail in every way.

python benchmarks/faults/processes.py [--only counts,stop,kill,…]

Prints rows of a Markdown table. Right is: from one process to two and back over three
epochs, every step takes the examples that it takes in a run that nothing disturbs; a
process that fails ends the other within 30 s, whose screen names the cause, and the
same command then finishes the run. A signal to one stops both at the same step.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import tiny
from PIL import Image

HERE = pathlib.Path(__file__).parent
LOCAL = HERE.parents[1] / "launch" / "local.sh"
TRAIN = [sys.executable, HERE / "disturbed.py", "--config", HERE / "tiny.py"]
# Runs "$@" behind its first argument, which process 1 alone gets as its last one.
ON_ONE = [
    "bash",
    "-c",
    '[ $BEIT_JAX_PROCESS = 0 ] || set -- "$@" "$1"; exec "${@:2}"',
    "",
]
LIMIT = 30  # seconds until all have ended
DEAD = "stopped sending heartbeats|leader task was preempted/died"
DEAD += "|DEADLINE_EXCEEDED"  # what JAX says of a process 0 that does not answer
# What happens -> what the other process says of it.
CAUSES = {
    "raise": "has ended: RuntimeError: disturbed",
    "hang": "no step for 0.15 minutes",
    "kill": DEAD,
    "freeze": DEAD,
}


class Run:
    """A work directory, and the commands that train in it."""

    def __init__(self, workdir: pathlib.Path):
        self.workdir = workdir
        shutil.rmtree(workdir, ignore_errors=True)

    def start(self, processes: int, disturb: str = "", *flags: str):
        """(exit code, lines of all screens, seconds since the disturbance)."""
        self.workdir.mkdir(parents=True, exist_ok=True)
        wanted = {"DISTURB": disturb, "EXAMPLES": str(self.workdir / "examples")}
        process = subprocess.Popen(
            [LOCAL, str(processes), *TRAIN, "--workdir", self.workdir, *flags],
            env=os.environ | wanted | {"JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines, since = [], time.monotonic()
        for line in process.stdout:
            lines.append(line)
            if "disturbed: " in line:
                since = time.monotonic()
        return process.wait(), lines, time.monotonic() - since

    def examples(self) -> dict[int, list[int]]:
        """Step -> what it took, in order; of a step that was done again the last."""
        found = {}
        for line in (self.workdir / "examples").read_text().splitlines():
            step, process, index = json.loads(line)
            found.setdefault(step, {})[process] = index
        return {
            step: sum((mine[p] for p in sorted(mine)), [])
            for step, mine in found.items()
        }


def counts(root: pathlib.Path, straight: dict) -> Iterator[tuple]:
    """One process, then two, then one."""
    run, begun = Run(root / "counts"), time.monotonic()
    codes = [
        run.start(processes, "", f"--config.steps={steps}")[0]
        for processes, steps in ((1, 7), (2, 14), (1, tiny.STEPS))
    ]
    lines = (run.workdir / "examples").read_text().splitlines()
    steps = [json.loads(line)[:2] for line in lines]
    twice = len(steps) - len({tuple(step) for step in steps})
    wrong = sum(run.examples().get(step) != want for step, want in straight.items())
    right = codes == [0, 0, 0] and not twice and not wrong
    result = f"{twice} steps repeated, {wrong} of {len(straight)} with other examples"
    yield "1, 2, 1 processes, 3 epochs", right, result, time.monotonic() - begun


def failing(root: pathlib.Path, straight: dict, what: str) -> Iterator[tuple]:
    """One of two fails, then both go on."""
    for process in (0, 1):
        run = Run(root / f"{what}{process}")
        watch = ["--config.log.watchdog_minutes=0.15"] if what == "hang" else []
        code, lines, seconds = run.start(2, f"{what}@7@{process}", *watch)
        other = "".join(line for line in lines if line.startswith(f"[{1 - process}]"))
        named = any(cause in other for cause in CAUSES[what].split("|"))
        again = run.start(2)[0]
        same = run.examples() == straight
        right = code not in (0, 75) and named and not again and same
        if not right:
            print(code, named, again, same, *lines, file=sys.stderr)
        result = (
            f"code {code}, cause named: {named}, then finished: {not again and same}"
        )
        yield f"{what} in process {process} of 2", right, result, seconds


def stop(root: pathlib.Path, straight: dict) -> Iterator[tuple]:
    """One of two is asked to stop, then both go on."""
    for name in ("SIGTERM", "SIGINT", "SIGHUP,SIGHUP"):
        run = Run(root / f"stop{name}")
        code, _, seconds = run.start(2, f"{name}@2@1")
        again = run.start(2)[0]
        lines = (run.workdir / "examples").read_text().splitlines()
        same = run.examples() == straight and len(lines) == 2 * len(straight)
        right = (code, again, same) == (75, 0, True)
        result = f"code {code}, then {again}, no step repeated or skipped: {same}"
        yield f"{name} to process 1 of 2", right, result, seconds


def bad(root: pathlib.Path, _) -> Iterator[tuple]:
    """Images that cannot be read, counted over one process and over two."""
    images, broken = root / "images", {7, 20, 21, 40}
    for number in range(52):
        file = images / f"{number % 4}" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        if number in broken:
            file.touch()
        else:
            Image.new("RGB", (32, 32), (4 * number, 0, 0)).save(file)
    found, begun = [], time.monotonic()
    for processes in (1, 2):
        run = Run(root / f"bad{processes}")
        code = run.start(processes, "", f"--config={HERE / 'tiny.py'}:{images}")[0]
        lines = (run.workdir / "metrics.jsonl").read_text().splitlines()
        counts = [json.loads(line).get("train/skipped", 0) for line in lines]
        named = {
            line.split(":")[0]
            for file in run.workdir.glob("skipped_[0-9].txt")
            for line in file.read_text().splitlines()
        }
        found.append((code, max(counts), len(named)))
    right = found == [(0, len(broken), len(broken))] * 2
    result = f"code, counted, named: {found}"
    yield f"{len(broken)} bad files", right, result, time.monotonic() - begun


def setting(root: pathlib.Path, _) -> Iterator[tuple]:
    """One of two is given another setting, or one that there is not."""
    for flag, words in {
        "--config.optim.lr=0.5": "has other settings than process 0: optim.lr=0.5",
        "--config.optim.lrr=1": "unknown key 'optim.lrr'",
    }.items():
        begun = time.monotonic()
        done = subprocess.run(
            [LOCAL, "2", *ON_ONE, flag, *TRAIN, "--workdir", root / "setting"],
            capture_output=True,
            text=True,
        )
        seconds = time.monotonic() - begun  # with the start of both
        screens = (done.stdout + done.stderr).splitlines()
        named = {line[:3] for line in screens if words in line}
        right = done.returncode == 78 and named == {"[0]", "[1]"}
        yield f"{flag} on one of 2", right, f"code {done.returncode}", seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", default=",".join(["counts", "stop", *CAUSES, "bad", "setting"])
    )
    wanted = parser.parse_args().only.split(",")
    root = pathlib.Path(tempfile.mkdtemp(prefix="processes_"))
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(root / "cache"))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    straight = Run(root / "straight")
    compared = bool({*wanted} - {"bad", "setting"})
    if compared and straight.start(1)[0]:
        raise SystemExit(f"the undisturbed run failed: {root}")
    examples = straight.examples() if compared else {}
    assert not examples or examples.keys() == set(range(1, tiny.STEPS + 1))
    wrong = 0
    for name in wanted:
        if name in CAUSES:
            rows = failing(root, examples, name)
        else:
            others = {"counts": counts, "stop": stop, "bad": bad, "setting": setting}
            rows = others[name](root, examples)
        for what, right, result, seconds in rows:
            late = name in CAUSES and seconds > LIMIT
            wrong += late or not right
            verdict = "late" if late else "right" if right else "WRONG"
            print(f"| {what} | {verdict}: {result} | {seconds:.1f} s |", flush=True)
    if wrong:
        raise SystemExit(f"{wrong} wrong; kept for inspection: {root}")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
