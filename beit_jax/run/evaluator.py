"""One pass over a split: what a task measures, and pictures of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from beit_jax import sharding
from beit_jax.data import pipeline
from beit_jax.data.pipeline import EvalStream
from beit_jax.run.state import TrainState
from beit_jax.tasks.base import Context

Tree = Any


def compiled(
    method: Callable[[Tree, Tree, Context], Tree], mesh: Mesh, seed: int
) -> Callable[[TrainState, Tree, Mapping[str, np.ndarray]], Tree]:
    """A task's `method` with a state's (averaged) parameters, compiled once.

    (state, frozen, this host's part of a batch) -> what it makes of the whole batch.
    """

    def call(state: TrainState, frozen: Tree, batch: Tree, key):
        rng = jax.random.fold_in(key, state.step)
        ctx = Context(state.step, rng, state.model_state, frozen)
        return method(state.eval_params, batch, ctx)

    step = jax.jit(call, out_shardings=sharding.replicated(mesh))
    key = jax.random.key(seed)
    return lambda state, frozen, batch: step(
        state, frozen, sharding.put_batch(batch, mesh), key
    )


class Evaluator:
    """Measures and paints with a state's (averaged) parameters; compiles once."""

    def __init__(self, task, mesh: Mesh, seed: int):
        def measured(params, batch, ctx):
            return task.eval_step(params, batch, ctx), jnp.sum(batch["weight"])

        self._task = task
        self._measured = compiled(measured, mesh, seed)
        self._pictures = compiled(task.pictures, mesh, seed)

    def measure(
        self,
        state: TrainState,
        frozen: Tree,
        stream: EvalStream,
        shard: tuple[int, int],
    ) -> tuple[dict[str, float], Sequence[Tree]]:
        """Metrics over the stream; independent of batch size, padding, mesh, hosts.

        eval/examples is how many were counted: all, but for those that were skipped.

        Args:
          shard: this host's number and the number of hosts.

        Returns:
          The metrics, and of what they were made: the outputs of the task's eval_step.
        """
        measured = [
            self._measured(state, frozen, batch) for batch in stream.batches(shard)
        ]
        # The only wait for the devices, and no batch's outputs are more than rows.
        outputs, counts = zip(*jax.device_get(measured), strict=True)
        metrics = self._task.summarize(outputs) | {"examples": float(sum(counts))}
        if skipped := stream.info.num_examples - metrics["examples"]:
            metrics["skipped"] = skipped
        return {f"eval/{name}": value for name, value in metrics.items()}, outputs

    def paint(
        self,
        state: TrainState,
        frozen: Tree,
        stream: EvalStream,
        shard: tuple[int, int],
        count: int,
        outputs: Sequence[Tree],
    ) -> dict[str, np.ndarray]:
        """Name -> (count or 1, H, W, 3): what was learnt, and charts of `outputs`.

        Of the task's pictures the first `count` of the first batch; nothing if that is
        0. The first host alone draws charts.
        """
        if not count:
            return {}
        pictures = self._pictures(state, frozen, next(iter(stream.batches(shard))))
        shown = {name: np.asarray(image[:count]) for name, image in pictures.items()}
        if shard[0]:
            return shown
        return shown | self._task.charts(outputs, stream.info.class_names)


def evaluation_stream(config: ConfigDict, task) -> EvalStream | None:
    """Of `data.eval_source`; None where the config names none."""
    if not config.data.eval_source:
        return None
    return pipeline.eval_stream(config.data, task.train_spec, config.seed)
