"""One pass over a split: `python -m beit_jax.evaluate --workdir W [--config C …]`."""

import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from beit_jax import command, sharding, state, tasks, weights
from beit_jax import config as config_lib
from beit_jax.data import pipeline
from beit_jax.data.pipeline import EvalStream
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

        def measured(params, batch, ctx):
            return task.eval_step(params, batch, ctx), jnp.sum(batch["weight"])

        self._task, self._mesh, self._key = task, mesh, jax.random.key(seed)
        self._measured, self._pictures = compiled(measured), compiled(task.pictures)

    def measure(
        self, now: TrainState, frozen: Tree, stream: EvalStream, shard: tuple[int, int]
    ) -> dict[str, float]:
        """Metrics over the stream; independent of batch size, padding, mesh, hosts.

        eval/examples is how many were counted: all, but for those that were skipped.

        Args:
          shard: this host's number and the number of hosts.
        """
        measured = [
            self._measured(
                now, frozen, sharding.put_batch(batch, self._mesh), self._key
            )
            for batch in stream.batches(shard)
        ]
        sums, counts = zip(*jax.device_get(measured), strict=True)
        metrics = self._task.summarize(sums) | {"examples": float(sum(counts))}
        if skipped := stream.info.num_examples - metrics["examples"]:
            metrics["skipped"] = skipped
        return {f"eval/{name}": value for name, value in metrics.items()}

    def paint(
        self,
        now: TrainState,
        frozen: Tree,
        stream: EvalStream,
        shard: tuple[int, int],
        count: int,
    ) -> dict[str, np.ndarray]:
        """The first `count` pictures of the first batch, name -> (count, H, W, 3)."""
        if not count:
            return {}
        batch = sharding.put_batch(next(iter(stream.batches(shard))), self._mesh)
        pictures = self._pictures(now, frozen, batch, self._key)
        return {name: np.asarray(image[:count]) for name, image in pictures.items()}


def evaluation_stream(config: ConfigDict, task) -> EvalStream | None:
    """Of `data.eval_source`; None where the config names none."""
    if not config.data.eval_source:
        return None
    return pipeline.eval_stream(config.data, task.example_spec, config.seed)


def metric_names(task, spec: Mapping[str, tuple]) -> list[str]:
    """What `task.summarize` gives, found without computing; `spec` is a batch's."""
    batch = {name: jax.ShapeDtypeStruct(*form) for name, form in spec.items()}
    boxed = nn.unbox(state.abstract_variables(task, batch))
    frozen = jax.eval_shape(task.load_frozen)
    step = jax.ShapeDtypeStruct((), jnp.int32)

    def sums(params, batch, model_state, frozen, step):
        ctx = Context(step, jax.random.key(0), model_state, frozen)
        return task.eval_step(params, batch, ctx)

    shapes = jax.eval_shape(
        sums, boxed["params"], batch, boxed["model_state"], frozen, step
    )
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape), shapes)
    return list(task.summarize([ones]))


def check_classes(task, *streams) -> None:
    """Holds the classes of labelled streams (None is skipped) against the task's.

    JAX would not notice: a label beyond the last class gives NaN or nothing.

    Raises:
      ValueError: another number of classes, or streams that name them differently.
    """
    infos = [stream.info for stream in streams if stream and task.classes]
    for info in infos:
        names = info.class_names
        if len(names) != task.classes:
            raise ValueError(
                f"config.task.classes={task.classes}, but {info.name} has "
                f"{len(names)}: {', '.join(names[:12])}{', …' if names[12:] else ''}"
            )
        if names != infos[0].class_names:
            raise ValueError(
                f"{infos[0].name} and {info.name} have different classes: "
                f"{sorted(set(names) ^ set(infos[0].class_names))[:12]}"
            )


def check_frozen(task, saved: weights.Restored) -> None:
    """Raises ValueError when the tokenizer is not the one that a run was trained on."""
    now = task.frozen_from and int(task.frozen_from.name)
    then = saved.position.get("frozen_step", now)
    if now != then:
        raise ValueError(
            f"{saved.path} was trained on the tokens of step {then} of its tokenizer, "
            f"which is now at step {now}; name that step in task.target.checkpoint"
        )


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
    saved = weights.restore_params(path)
    if config is None:  # the checkpoint's own, on the devices that are here
        config = config_lib.from_dict(saved.config)
        config.mesh = config_lib.defaults().mesh
    config_lib.check(config)
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch_size(config.data.batch_size, mesh)
    task = tasks.build(config)
    stream = evaluation_stream(config, task)
    if stream is None:
        raise ValueError(
            f"data.eval_source of {saved.path} is empty: nothing to evaluate on; give "
            "--config with a recipe that has one, and the same model"
        )
    check_classes(task, stream)
    check_frozen(task, saved)
    spec = {k: jax.ShapeDtypeStruct(*v) for k, v in stream.spec.items()}
    boxed = state.abstract_variables(task, spec)
    params = task.adapt(saved.params, saved.config["model"])
    have = {"params": params, "model_state": saved.model_state}
    weights.check_fit(have, nn.unbox(boxed), str(saved.path))
    with jax.set_mesh(mesh):
        have = jax.device_put(have, sharding.shardings_of(boxed, mesh))
        frozen = jax.device_put(task.load_frozen(), sharding.replicated(mesh))
        step = jnp.asarray(int(saved.path.name), jnp.int32)
        now = TrainState(step=step, opt_state=None, ema=None, **have)
        shard = (jax.process_index(), jax.process_count())
        evaluator = Evaluator(task, mesh, config.seed)
        metrics = evaluator.measure(now, frozen, stream, shard)
        for sentence in stream.ledger.sentences.values():
            print(f"skipped: {sentence}", file=sys.stderr)
        return metrics


def main(options) -> None:
    print(json.dumps(evaluate(options.workdir, options.config), indent=2))


if __name__ == "__main__":
    command.define_flags(
        "a run's work directory, or one checkpoint in it",
        "a recipe, FILE[:ARG], instead of the checkpoint's own config",
    )
    command.run(main)
