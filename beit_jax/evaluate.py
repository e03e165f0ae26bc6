"""One pass over a split: `python -m beit_jax.evaluate --workdir W [--config C …]`."""

import json
import pathlib
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from jax.sharding import Mesh
from ml_collections import ConfigDict, config_flags

from beit_jax import checkpoint, sharding, state, tasks
from beit_jax import config as config_lib
from beit_jax.data import pipeline
from beit_jax.state import TrainState
from beit_jax.tasks.base import Context

Tree = Any


class Evaluator:
    """Measures and paints with a state's (averaged) parameters; compiles once."""

    def __init__(self, task, mesh: Mesh, seed: int):
        def compiled(method):
            def call(now: TrainState, frozen: Tree, batch: Tree, key):
                rng = jax.random.fold_in(key, now.step)
                ctx = Context(now.step, rng, now.model_state, frozen)
                return method(now.eval_params, batch, ctx)

            return jax.jit(call, out_shardings=sharding.replicated(mesh))

        self._task, self._mesh, self._key = task, mesh, jax.random.key(seed)
        self._sums, self._pictures = compiled(task.eval_step), compiled(task.pictures)

    def measure(
        self, now: TrainState, frozen: Tree, batches: Iterable
    ) -> dict[str, float]:
        """Metrics over all batches; independent of batch size, padding, mesh, hosts."""
        sums = [
            self._sums(now, frozen, sharding.put_batch(batch, self._mesh), self._key)
            for batch in batches
        ]
        metrics = self._task.summarize(jax.device_get(sums))
        return {f"eval/{name}": value for name, value in metrics.items()}

    def paint(
        self, now: TrainState, frozen: Tree, batches: Iterable, count: int
    ) -> dict[str, np.ndarray]:
        """The first `count` pictures of the first batch, name -> (count, H, W, 3)."""
        batch = sharding.put_batch(next(iter(batches)), self._mesh)
        pictures = self._pictures(now, frozen, batch, self._key) if count else {}
        return {name: np.asarray(image[:count]) for name, image in pictures.items()}


def evaluate(
    path: str | pathlib.Path, config: ConfigDict | None = None
) -> dict[str, float]:
    """Metrics of a checkpoint over all of its config's `data.eval_source`.

    Args:
      path: a work directory, its checkpoints/, or one step in it.
      config: instead of the one that the checkpoint carries.

    Raises:
      ValueError: no checkpoint, one that does not fit, or nothing to evaluate on.
    """
    saved = checkpoint.restore_params(path)
    config = config or config_lib.from_dict(saved.config)
    config_lib.check(config)
    if not config.data.eval_source:
        raise ValueError("config: data.eval_source is empty: nothing to evaluate on")
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch_size(config.data.batch_size, mesh)
    task = tasks.build(config)
    stream = pipeline.eval_stream(config.data, task.example_spec, config.seed)
    spec = {k: jax.ShapeDtypeStruct(*v) for k, v in stream.spec.items()}
    boxed = state.abstract_variables(task, spec)
    have = {"params": saved.params, "model_state": saved.model_state}
    checkpoint.check_fit(have, nn.unbox(boxed), str(saved.path))
    with jax.set_mesh(mesh):
        have = jax.device_put(have, sharding.shardings_of(boxed, mesh))
        frozen = jax.device_put(task.load_frozen(), sharding.replicated(mesh))
        step = jnp.asarray(int(saved.path.name), jnp.int32)
        now = TrainState(step=step, opt_state=None, ema=None, **have)
        shard = (jax.process_index(), jax.process_count())
        evaluator = Evaluator(task, mesh, config.seed)
        return evaluator.measure(now, frozen, stream.batches(shard))


def main(_) -> None:
    logging.set_verbosity(logging.ERROR)
    metrics = evaluate(FLAGS.workdir, FLAGS.config)
    print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    FLAGS = flags.FLAGS
    config_flags.DEFINE_config_file(
        "config", help_string="a recipe, FILE[:ARG]; default: the checkpoint's own"
    )
    flags.DEFINE_string("workdir", None, "a run's work directory or checkpoint")
    flags.mark_flag_as_required("workdir")
    app.run(main)
