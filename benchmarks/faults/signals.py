"""Sends signals, once and twice, at every stage of a run; counts the steps lost.

python benchmarks/faults/signals.py [--signals SIGTERM,SIGINT,SIGHUP]

Prints rows of a Markdown table. Each time a run is stopped, and then the same command
finishes it: right is exit code 75, the last step that was done being saved, then exit
code 0, with state and evaluations that are those of a run that nothing stopped, bit for
bit. To save the seconds of imports, processes are forked after them.
"""

import argparse
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time
import traceback
import types

import disturbed
import jax
import tiny
from fingerprint import write_fingerprint

from beit_jax.train import main as train

MOMENTS = ("start", "compile", "7", "evaluation", "save", "final")


def forked(workdir: pathlib.Path, function, *arguments) -> int:
    """The exit code of a process that calls `function`. JAX must not run before."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    workdir.mkdir(exist_ok=True)
    with (workdir / "log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        function(workdir, *arguments)
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


def run(workdir: pathlib.Path, disturb: str = "") -> None:
    disturbed.prepare(disturbed.Disturbance(disturb), str(workdir / "examples"))
    train(types.SimpleNamespace(config=tiny.get_config(), workdir=workdir))


def saved(workdir: pathlib.Path) -> str:
    forked(workdir, write_fingerprint)
    file = workdir / "fingerprint"
    return file.read_text() if file.exists() else "0"


def measured(workdir: pathlib.Path) -> list[dict]:
    """The evaluations that the run has told."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if "eval/loss" in line]


def last_step(workdir: pathlib.Path) -> int:
    file = workdir / "examples"
    lines = file.read_text().splitlines() if file.exists() else ["[0]"]
    return json.loads(lines[-1])[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--signals", default="SIGTERM,SIGINT,SIGHUP")
    names = parser.parse_args().signals.split(",")
    root, begun = pathlib.Path(tempfile.mkdtemp(prefix="signals_")), time.monotonic()
    jax.config.update("jax_compilation_cache_dir", str(root / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    for name in ("warm", "straight"):  # the first one compiles
        if code := forked(root / name, run):
            raise SystemExit(f"the undisturbed run ended with code {code}: {root}")
    end, metrics = saved(root / "straight"), measured(root / "straight")
    wrong = 0
    for moment in MOMENTS:
        for times in (1, 2):
            right, seconds, lost = 0, [], 0
            for name in names:
                workdir = root / f"{moment}-{name}-{times}"
                start = time.monotonic()
                code = forked(workdir, run, ",".join([name] * times) + f"@{moment}")
                seconds.append(time.monotonic() - start)
                gone = last_step(workdir) - int(saved(workdir).split()[0])
                lost += gone
                again = forked(workdir, run)
                same = (saved(workdir), measured(workdir)) == (end, metrics)
                good = (code, gone, again, same) == (75, 0, 0, True)
                right += good
                if good:
                    shutil.rmtree(workdir)
                else:
                    print(workdir, code, gone, again, same, file=sys.stderr)
            wrong += len(names) - right
            often = {1: "once", 2: "twice, 20 ms apart"}[times]
            print(
                f"| {', '.join(names)} {often}, in: {moment} | {right} of {len(names)} "
                f"right, {lost} steps lost | {max(seconds):.1f} s |",
                flush=True,
            )
    print(f"{time.monotonic() - begun:.0f} s in all")
    if wrong:
        raise SystemExit(f"kept for inspection: {root}")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
