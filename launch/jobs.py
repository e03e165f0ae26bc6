"""Runs that need each other's results, several at once, to be stopped at any time."""

import json
import os
import pathlib
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import active_children, get_context
from typing import Any, NamedTuple

import jax
from absl import logging

# Not SIGHUP: nohup lets it be ignored, in workers too.
SIGNALS = (signal.SIGTERM, signal.SIGINT)

Results = dict[str, dict[str, Any]]


class Job(NamedTuple):
    """One run: `function(study, results, **arguments)`, after those in `needs`."""

    name: str
    needs: tuple[str, ...]
    function: Callable[..., dict[str, Any]]
    arguments: dict[str, Any]


def read(folder: pathlib.Path) -> Results:
    file = folder / "results.json"
    return json.loads(file.read_text()) if file.exists() else {}


def run_all(study, wanted: Sequence[Job], workers: int) -> Results:
    """Runs what `study.folder/results.json` does not hold yet, and keeps it there."""
    results = read(study.folder)
    waiting = [job for job in wanted if job.name not in results]
    running = {}
    context = get_context("spawn")  # JAX does not survive a fork
    given = (study.folder, workers, context.Value("i"))
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # workers may share a GPU
    with ProcessPoolExecutor(workers, context, _prepare, given) as pool:
        while waiting or running:
            ready = [job for job in waiting if results.keys() >= set(job.needs)]
            for job in ready[: workers - len(running)]:
                waiting.remove(job)
                call = (job.function, study, dict(results), job.arguments)
                running[pool.submit(_guarded, *call)] = job.name
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                try:
                    results[name] = future.result()
                except Exception as error:
                    error.add_note(f"in {name}")
                    raise
                _write(study.folder, results)
                print(f"{name}  {_summary(results[name])}", flush=True)
    return results


def stop(*_) -> None:
    """A signal that comes to this process alone: lets every run save before all end."""
    for child in active_children():
        child.terminate()
    raise KeyboardInterrupt


def _guarded(function: Callable, study, results: Results, arguments: dict) -> dict:
    """A signal ends this job, never its worker: a dead one takes the others with it."""
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)
    try:
        return function(study, results, **arguments)
    finally:
        _ignore_signals()


def _ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _prepare(folder: pathlib.Path, workers: int, begun) -> None:
    """Gives a worker its share of the cores, and all of them one compilation cache.

    Small models on a core each train faster than one after another on all cores.
    """
    _ignore_signals()
    with begun.get_lock():
        number = begun.value
        begun.value += 1
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[number % workers :: workers] or cores)
    logging.set_verbosity(logging.ERROR)
    cache = folder.resolve() / "xla_cache"
    jax.config.update("jax_compilation_cache_dir", str(cache))


def _write(folder: pathlib.Path, results: Results) -> None:
    new = folder / "results.new"
    new.write_text(json.dumps(results, indent=1))
    os.replace(new, folder / "results.json")


def _summary(metrics: dict[str, Any]) -> str:
    shown = ("top1", "accuracy", "loss", "psnr")
    found = {name: metrics.get(f"eval/{name}") for name in shown}
    return "  ".join(f"{k} {v:.4g}" for k, v in found.items() if v is not None)
