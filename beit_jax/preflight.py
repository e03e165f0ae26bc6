"""Tells whether a recipe will run on hardware that is not here, and what it costs.

python -m beit_jax.preflight --config configs/beit_pretrain.py --on v5e:4x8
Compiles the very training step of the recipe for the devices that --on names (a TPU
slice, NVIDIA's cards, or cpu:N) and reads from the program what it takes of memory and
sends between devices; estimates seconds a step and days. Where it does not fit, tries
what would make it fit. --json keeps everything. See docs/preflight.md.
The exit code is 0 if the step fits as asked, 69 if not.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from beit_jax import command, tasks
from beit_jax import config as config_lib
from beit_jax.ahead import estimate, report, topology
from beit_jax.ahead.collectives import collectives
from beit_jax.ahead.hlo import Program
from beit_jax.ahead.targets import Place, find
from beit_jax.ahead.traffic import traffic
from beit_jax.ahead.ways import Change, ways
from beit_jax.ahead.ways import flags as as_flags
from beit_jax.data import sources
from beit_jax.run.summary import flops_by_precision
from beit_jax.run.traced import Step, nbytes, places, trace
from beit_jax.stores import on_disk
from beit_jax.text import UTF8

TOO_LARGE = 69  # the step does not fit
# Without a card there is nothing to tune Triton's products on: some then fail.
_OPTIONS = {"cuda": {"xla_gpu_enable_triton_gemm": False}}


def compiled(step: Step, place: Place) -> jax.stages.Compiled | str:
    """The program, or the compiler's sentence on why it does not fit."""
    options = _OPTIONS.get(place.target.platform)
    try:
        with jax.set_mesh(step.mesh):
            return step.traced.lower().compile(options)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return report.refusal(str(error))


def attempt(step: Step, place: Place, memory: float) -> dict[str, Any]:
    """What the compiler says of a step; "fits" if it needs no more than `memory`."""
    begun = time.perf_counter()
    program = compiled(step, place)
    found = {"compile_seconds": round(time.perf_counter() - begun, 1)}
    if isinstance(program, str):
        return found | {"fits": False, "refused": program}
    needs = report.memory(program.memory_analysis())
    fits = needs["needed"] <= memory * 2**30
    return found | {"fits": fits, "memory": needs, "text": program.as_text()}


def costs(step: Step, text: str, place: Place, feed, price: float) -> dict[str, Any]:
    """All that the program of a step tells, and what follows from it."""
    mesh, devices = step.mesh, step.mesh.size
    hosts = np.array([device.process_index for device in mesh.devices.flat])
    program = Program(text)
    sends = collectives(program, dict(mesh.shape), hosts)
    flops = flops_by_precision(step.traced.jaxpr.jaxpr)
    moved = traffic(program)
    each = {kind: count / devices for kind, count in flops.items()}
    times = estimate.seconds(each, moved, sends, place.target)
    count = len(set(hosts.tolist()))
    batch = {"images": step.config.data.batch_size, "bytes": nbytes(step.batch)}
    state = {"bytes": nbytes(step.state), "every": step.plan.save}
    return {
        "mesh": dict(mesh.shape),
        "state": places(step.state),
        "collectives": [one._asdict() for one in sends],
        "loops_of_unknown_length": program.unknown,
        "flops": dict(flops),
        "traffic_bytes": moved,
        "seconds": times._asdict() | {"step": times.step, "bound": times.bound},
        "host": estimate.hosts(times.step, batch, count, feed, state),
        "run": estimate.whole(times.step, step.plan.total, devices, price),
        "assumed": estimate.assumed(place.target, feed),
    }


def tries(
    config: ConfigDict, devices: Sequence[jax.Device], epoch: int, search: bool
) -> Iterator[tuple[Change, Step | str]]:
    """The step as asked, then changed to be smaller; or why there is none such."""
    task = tasks.build(config)
    yield {}, trace(config, task, devices, epoch)
    blocks = task.network is not None and hasattr(task.encoder, "remat")
    for change in ways(config, len(devices), blocks) if search else ():
        changed = config_lib.change(config.copy_and_resolve_references(), **change)
        try:
            yield change, trace(changed, tasks.build(changed), devices, epoch)
        except ValueError as error:
            yield change, str(error)


def examples(config: ConfigDict, given: int) -> int:
    """How many there are in an epoch, if that matters at all.

    Raises:
      ValueError: the data are not here, and nobody says.
    """
    optim = config.optim
    warmup_by_steps = optim.warmup_steps is not None or not optim.warmup_epochs
    by_steps = config.steps is not None and warmup_by_steps
    if given or by_steps:
        return given or config.data.batch_size
    try:
        return sources.build(config.data.source).info.num_examples
    except ValueError as error:
        raise ValueError(
            f"{error}; or say how many examples it has by --examples, 1281167 of "
            "ImageNet-1k"
        ) from error


def preflight(options) -> dict[str, Any]:
    """All that is found, as plain data."""
    place = find(options.on)
    config = options.config
    config_lib.check(config)
    memory = options.memory or place.target.usable
    feed = estimate.Feed(options.images_per_core, options.image_kb)
    epoch = examples(config, options.examples)
    devices = topology.devices(place)
    found = {"on": str(place), "devices": len(devices), "memory_gib": memory}
    tried = []
    for change, step in tries(config, devices, epoch, options.search):
        if isinstance(step, str):
            tried.append({"change": as_flags(change), "refused": step, "fits": False})
            continue
        one = attempt(step, place, memory)
        text = one.pop("text", "")
        tried.append({"change": as_flags(change), **one})
        if one["fits"] or (not options.search and text):
            found["with"] = as_flags(change)
            found |= costs(step, text, place, feed, options.price)
            break
    return {**found, "fits": tried[0]["fits"], "tried": tried}


def main(options) -> None:
    found = preflight(options)
    report.tell(found)
    if options.json:
        path = on_disk(options.json, "--json")
        path.write_text(json.dumps(found, indent=2) + "\n", **UTF8)
    if not found["fits"]:
        sys.exit(TOO_LARGE)


if __name__ == "__main__":
    command.run("preflight", main)
