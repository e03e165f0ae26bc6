"""What in a step was not finite: `python -m beit_jax.replay --workdir W [--step N]`.

A run that ends because a loss or gradients were not finite leaves failed_step_N.json in
its work directory: the step, its examples by name, the seed. This does that step again
from the newest checkpoint, and tells its loss, the parameters whose gradients are not
finite, and the examples that make them so by themselves. The run stays as it is. If all
is finite this time, it was the device.
"""

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from beit_jax import command, sharding
from beit_jax import config as config_lib
from beit_jax.checkpoints import frozen as frozen_lib
from beit_jax.checkpoints.keeper import Checkpointer
from beit_jax.checkpoints.names import flatten
from beit_jax.run.begin import begin
from beit_jax.run.finite import FAILED
from beit_jax.run.lock import locked
from beit_jax.run.parts import Parts, assemble
from beit_jax.run.step import make_gradients, make_update
from beit_jax.run.whole import whole
from beit_jax.stores import on_disk

_MOST = 8  # examples that are looked for

Batch = dict[str, np.ndarray]
# A batch -> its loss, and the norm of every parameter's gradient.
Again = Callable[[Batch], tuple[float, dict[str, float]]]


def replay(
    workdir: str | pathlib.Path,
    step: int | None = None,
    config: ConfigDict | None = None,
) -> dict[str, Any]:
    """Does a failed step again.

    Args:
      workdir: of the run.
      step: which; None: the last one that failed.
      config: a recipe's, instead of config.json: for tasks or heads of your own.

    Returns:
      step, loss, grad_norm; parameters: those whose gradients are not finite; examples:
      (index, name) of the first few that alone have such gradients; others may, too.

    Raises:
      ValueError: no such step, or no checkpoint before it.
    """
    workdir = on_disk(workdir, "--workdir").resolve()
    step = _failed(workdir, step)
    if config is None:
        config = config_lib.load(workdir / "config.json")
    mesh = sharding.make_mesh(config.mesh)
    parts = assemble(config)
    with (
        locked(workdir),
        jax.set_mesh(mesh),
        Checkpointer(workdir, config, parts.card, whole) as run,
    ):
        batch, again = _before(step, config, parts, mesh, run)
        loss, norms = again(batch)
        culprits = [*_culprits(batch, again)][:_MOST]
    index, describe = parts.stream.index(step - 1), parts.stream.plan.source.describe
    return {
        "step": step,
        "loss": loss,
        "grad_norm": float(np.linalg.norm([*norms.values()])),
        "parameters": [name for name, x in norms.items() if not np.isfinite(x)],
        "examples": [(int(index[row]), describe(int(index[row]))) for row in culprits],
    }


def _before(
    step: int, config: ConfigDict, parts: Parts, mesh: Mesh, run: Checkpointer
) -> tuple[Batch, Again]:
    """The batch of a step, and what any batch would do to the state before it."""
    task, stream = parts.task, parts.stream
    state, shardings, optimizer, *_ = begin(config, parts, mesh, run)
    first = int(state.step)
    if first >= step:
        raise ValueError(
            f"the newest checkpoint in {run.directory} is of step {first}: nothing is "
            f"left from which step {step} could be done again"
        )
    frozen = jax.device_put(frozen_lib.load(task.frozen), sharding.replicated(mesh))
    update = make_update(task, optimizer, config, shardings, mesh)
    batches = stream.batches(first)
    for _, batch in zip(range(step - 1 - first), batches, strict=False):
        state, _ = update(state, frozen, sharding.put_batch(batch, mesh))
    gradients = make_gradients(task, optimizer, config.optim.accumulate)
    key = jax.random.key(config.seed)

    @jax.jit
    def look(state, frozen, batch):
        grads, aux = gradients(state, frozen, batch, key)
        loss = jnp.divide(*aux.metrics["loss"])
        return loss, jax.tree.map(jnp.linalg.norm, grads)

    def again(batch: Batch) -> tuple[float, dict[str, float]]:
        seen = look(state, frozen, sharding.put_batch(batch, mesh))
        loss, norms = jax.device_get(seen)
        return float(loss), flatten(norms)

    return next(batches), again


def _failed(workdir: pathlib.Path, step: int | None) -> int:
    files = sorted(workdir.glob(FAILED.format(0).replace("0" * 7, "*")))
    if step is not None or files:
        return step if step is not None else int(files[-1].stem.split("_")[-1])
    raise ValueError(
        f"{workdir} has no failed_step_N.json: no step of that run was not finite; "
        "name one by --step"
    )


def _culprits(batch: Batch, again: Again) -> Iterator[int]:
    """Rows whose examples alone make a loss or gradients that are not finite.

    Found by halves, each repeated until it is as large as the batch.
    """
    size = len(batch["weight"])
    halves = [np.arange(size)]
    while halves:
        rows = halves.pop(0)
        loss, norms = again({k: v[np.resize(rows, size)] for k, v in batch.items()})
        if np.isfinite([loss, *norms.values()]).all():
            continue
        if len(rows) == 1:
            yield int(rows[0])
        else:
            halves += np.array_split(rows, 2)


def main(options) -> None:
    told = replay(options.workdir, options.step, options.config)
    print(json.dumps(told, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    command.run("replay", main)
