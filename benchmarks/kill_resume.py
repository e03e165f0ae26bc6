"""Kills a run with SIGKILL at random times until it is complete; compares its end.

python benchmarks/kill_resume.py [--chains 10] [--steps 60] [--config FILE[:ARG]]

A run that nothing disturbs gives the reference. Each chain starts the same training
again and again, killing it at a random time, until a start finds nothing left to do.
A chain is right when its last checkpoint equals the reference's bit for bit: weights,
optimizer, averages, codebook. Checkpoints are written every few steps, so that many
kills land in one. To save the seconds of imports, processes are forked after them.
"""

import argparse
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

import jax
import numpy as np
from faults.fingerprint import write_fingerprint

from beit_jax import config as config_lib
from beit_jax.train import train

# Compiled programs are kept: only a chain's first start waits for the compiler.
CACHE = tempfile.mkdtemp(prefix="kill_resume_cache_")
jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

ROOT = pathlib.Path(__file__).parents[1]


def recipe(name: str, steps: int, every_steps: int):
    """The config of `FILE[:ARG]`, its weights averaged, saved every few steps."""
    file, _, argument = name.partition(":")
    config = config_lib.load(file, argument)
    config.steps = steps
    config.optim.ema_decay = 0.9
    config.checkpoint.every_steps = every_steps
    return config


def forked(function, *arguments) -> int:
    """Starts `function` in a process of its own; its id. JAX must not run before."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        function(*arguments)
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait(child: int) -> int:
    """The exit code of a process, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fingerprint(workdir: pathlib.Path) -> str:
    wait(forked(write_fingerprint, workdir))
    return (workdir / "fingerprint").read_text()


def unfinished(workdir: pathlib.Path) -> set[str]:
    """Steps of which a save, or a deletion, has been left in the middle."""
    checkpoints = workdir / "checkpoints"
    found = checkpoints.iterdir() if checkpoints.exists() else ()
    return {
        f"{path.name} {path.stat().st_ino}"
        for path in found
        if path.name.isdigit() and not (path / "commit_success.txt").exists()
    }


def chain(config, workdir: pathlib.Path, seconds: float, draw: random.Random):
    """Runs to the end through kills; (kills, kills in a save, damaged steps)."""
    kills = in_save = 0
    while True:
        before = unfinished(workdir)
        child = forked(train, config, workdir, True)
        deadline = time.monotonic() + draw.uniform(0, seconds)
        while time.monotonic() < deadline:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                if code:
                    raise SystemExit(f"{workdir}: a start ended with code {code}")
                damaged = list(workdir.glob("checkpoints/*.damaged*"))
                return kills, in_save, len(damaged)
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        wait(child)
        kills += 1
        in_save += bool(unfinished(workdir) - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config", default=str(ROOT / "configs" / "digits_tokenizer.py:tiny")
    )
    parser.add_argument("--chains", type=int, default=10)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every-steps", type=int, default=2, help="between saves")
    parser.add_argument("--seed", type=int, default=0, help="of the times of the kills")
    args = parser.parse_args()
    config = recipe(args.config, args.steps, args.every_steps)
    draw, root = random.Random(args.seed), pathlib.Path(tempfile.mkdtemp())
    for name in ("warm", "reference"):  # the first one compiles
        begun = time.monotonic()
        if code := wait(forked(train, config, root / name, True)):
            raise SystemExit(f"the undisturbed run ended with code {code}")
        seconds = time.monotonic() - begun
    wanted = fingerprint(root / "reference")
    print(f"reference: {seconds:.1f} s, {wanted}", flush=True)
    right, totals = 0, np.zeros(3, int)
    for number in range(args.chains):
        workdir = root / f"chain{number}"
        counts = chain(config, workdir, seconds, draw)
        same = fingerprint(workdir) == wanted
        right, totals = right + same, totals + counts
        print(f"chain {number}: {counts[0]} kills, {counts[1]} in a save, {same}")
        if same:
            shutil.rmtree(workdir)
    kills, in_save, damaged = totals
    print(
        f"{right}/{args.chains} chains bit-identical after {kills} kills, {in_save} of "
        f"them during a save; {damaged} checkpoints set aside as damaged"
    )
    shutil.rmtree(CACHE)
    if right < args.chains:
        raise SystemExit(f"kept for inspection: {root}")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
