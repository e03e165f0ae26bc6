"""One pass over a split: `python -m beit_jax.evaluate --workdir W [--config C …]`."""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from beit_jax import sharding
from beit_jax.state import TrainState
from beit_jax.tasks.base import Context

Tree = Any


class Evaluator:
    """Measures and paints with a state's (averaged) parameters; compiles once."""

    def __init__(self, task, mesh: Mesh, seed: int):
        def context(now: TrainState, frozen) -> Context:
            rng = jax.random.fold_in(jax.random.key(seed), now.step)
            return Context(now.step, rng, now.model_state, frozen)

        everywhere = sharding.replicated(mesh)
        self._task, self._mesh = task, mesh
        self._sums = jax.jit(
            lambda now, frozen, batch: task.eval_step(
                now.eval_params, batch, context(now, frozen)
            ),
            out_shardings=everywhere,
        )
        self._pictures = jax.jit(
            lambda now, frozen, batch: task.pictures(
                now.eval_params, batch, context(now, frozen)
            ),
            out_shardings=everywhere,
        )

    def measure(
        self, now: TrainState, frozen: Tree, batches: Iterable
    ) -> dict[str, float]:
        """Metrics over all batches; independent of batch size, padding, mesh, hosts."""
        sums = [
            self._sums(now, frozen, sharding.put_batch(batch, self._mesh))
            for batch in batches
        ]
        metrics = self._task.summarize(jax.device_get(sums))
        return {f"eval/{name}": value for name, value in metrics.items()}

    def paint(
        self, now: TrainState, frozen: Tree, batches: Iterable, count: int
    ) -> dict[str, np.ndarray]:
        """The first `count` pictures of the first batch, name -> (count, H, W, 3)."""
        batch = sharding.put_batch(next(iter(batches)), self._mesh)
        pictures = self._pictures(now, frozen, batch) if count else {}
        return {name: np.asarray(image[:count]) for name, image in pictures.items()}
