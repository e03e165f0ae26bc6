"""One pass over a split: `python -m beit_jax.evaluate --workdir W`.

Prints the metrics of a checkpoint as JSON, on the split that its own config names, or
of --config FILE[:ARG], or on images in class folders (or an archive of them): --data
PATH. Classes are then found by their names, which the checkpoint knows or
--class_names tells.

With --out DIR also writes metrics.json, the task's pictures (of a classifier
confusion.png and reliability.png) and its tables (per_class.csv, averages.csv, and
confusion.csv with the cells that are not 0).
"""

import json
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict

from beit_jax import card as card_lib
from beit_jax import command, sharding, state, tasks, weights
from beit_jax import config as config_lib
from beit_jax.convert.source import restore, step_of
from beit_jax.data import pipeline
from beit_jax.data.pipeline import EvalStream
from beit_jax.metrics import write_report
from beit_jax.state import TrainState
from beit_jax.tasks.base import Context

Tree = Any


def compiled(
    method: Callable[[Tree, Tree, Context], Tree], mesh: Mesh, seed: int
) -> Callable[[TrainState, Tree, Mapping[str, np.ndarray]], Tree]:
    """A task's `method` with a state's (averaged) parameters, compiled once.

    (state, frozen, this host's part of a batch) -> what it makes of the whole batch.
    """

    def call(now: TrainState, frozen: Tree, batch: Tree, key):
        rng = jax.random.fold_in(key, now.step)
        ctx = Context(now.step, rng, now.model_state, frozen)
        return method(now.eval_params, batch, ctx)

    step = jax.jit(call, out_shardings=sharding.replicated(mesh))
    key = jax.random.key(seed)
    return lambda now, frozen, batch: step(
        now, frozen, sharding.put_batch(batch, mesh), key
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
        self, now: TrainState, frozen: Tree, stream: EvalStream, shard: tuple[int, int]
    ) -> tuple[dict[str, float], Sequence[Tree]]:
        """Metrics over the stream; independent of batch size, padding, mesh, hosts.

        eval/examples is how many were counted: all, but for those that were skipped.

        Args:
          shard: this host's number and the number of hosts.

        Returns:
          The metrics, and of what they were made: the outputs of the task's eval_step.
        """
        measured = [
            self._measured(now, frozen, batch) for batch in stream.batches(shard)
        ]
        # The only wait for the devices, and no batch's outputs are more than rows.
        outputs, counts = zip(*jax.device_get(measured), strict=True)
        metrics = self._task.summarize(outputs) | {"examples": float(sum(counts))}
        if skipped := stream.info.num_examples - metrics["examples"]:
            metrics["skipped"] = skipped
        return {f"eval/{name}": value for name, value in metrics.items()}, outputs

    def paint(
        self,
        now: TrainState,
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
        pictures = self._pictures(now, frozen, next(iter(stream.batches(shard))))
        shown = {name: np.asarray(image[:count]) for name, image in pictures.items()}
        if shard[0]:
            return shown
        return shown | self._task.charts(outputs, stream.info.class_names)


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
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
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
    """Raises ValueError when frozen weights are not those that a run was trained on."""
    now = task.frozen_from and step_of(task.frozen_from)
    then = saved.position.get("frozen_step", now)
    if now != then:
        raise ValueError(
            f"{saved.path} was trained on frozen weights of step {then}, but the "
            f"recipe's are {task.frozen_from}; name that step as `checkpoint` in "
            "config.task"
        )


def own_config(saved: weights.Restored) -> ConfigDict:
    """The one that a checkpoint carries, on the devices that are here."""
    config = config_lib.from_dict(saved.config)
    config.mesh = config_lib.defaults().mesh
    return config


def load(saved: weights.Restored, task, mesh: Mesh) -> tuple[TrainState, Tree]:
    """A checkpoint's weights and the task's frozen ones, in their places on the mesh.

    Raises:
      ValueError: weights of another model, or trained on other frozen ones.
    """
    check_frozen(task, saved)
    one = {
        name: jax.ShapeDtypeStruct((1, *form.shape), form.dtype)
        for name, form in task.example_spec.items()
    }
    boxed = state.abstract_variables(task, one)
    params = task.adapt(saved.params, saved.config["model"])
    have = {"params": params, "model_state": saved.model_state}
    weights.check_fit(have, nn.unbox(boxed), str(saved.path))
    have = jax.device_put(have, sharding.shardings_of(boxed, mesh))
    step = jnp.asarray(saved.step, jnp.int32)
    frozen = jax.device_put(task.load_frozen(), sharding.replicated(mesh))
    return TrainState(step=step, opt_state=None, ema=None, **have), frozen


def stream_of(
    saved: weights.Restored, config: ConfigDict, task, card: card_lib.Card | None
) -> EvalStream:
    """The stream of `config`, held against the checkpoint's `card` if it is given."""
    stream = evaluation_stream(config, task)
    if stream is None:
        raise ValueError(
            f"data.eval_source of {saved.path} is empty: nothing to evaluate on; give "
            "--data with images, or --config with a recipe that has an eval_source"
        )
    check_classes(task, stream)
    if card is not None:
        here = card_lib.of(config, task, stream.info.class_names)
        tell("note", card_lib.check(card, here, f"checkpoint {saved.path}"))
    return stream


def evaluate(
    path: str | pathlib.Path,
    config: ConfigDict | None = None,
    data: str = "",
    out: str = "",
    override_card: bool = False,
    class_names: Sequence[str] = (),
) -> dict[str, float]:
    """Metrics of a checkpoint over all of its config's `data.eval_source`.

    Args:
      path: any checkpoint, see convert/source.py.
      config: instead of the one that the checkpoint carries.
      data: images in class folders, or an archive of them, instead of the eval_source.
      out: a folder for what there is to see besides; "": none.
      override_card: let images look otherwise than the checkpoint's card says.
      class_names: in the order of the logits, of a checkpoint that does not know them.

    Raises:
      ValueError: no checkpoint, one that does not fit, or nothing to evaluate on.
    """
    saved = restore(path)
    config = (config or own_config(saved)).copy_and_resolve_references()
    config_lib.check(config)
    task = tasks.build(config)
    card = card_lib.of_checkpoint(saved)
    if class_names:
        names = card_lib.class_names(saved, task.classes, class_names)
        card = card | {"class_names": list(names)}
    if data:
        source = {"name": "folder", "class_names": tuple(card["class_names"])}
        config.data.eval_source = ConfigDict(source | {"path": data})
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch_size(config.data.batch_size, mesh)
    stream = stream_of(saved, config, task, None if override_card else card)
    now, frozen = load(saved, task, mesh)
    with jax.set_mesh(mesh):
        shard = (jax.process_index(), jax.process_count())
        evaluator = Evaluator(task, mesh, config.seed)
        metrics, outputs = evaluator.measure(now, frozen, stream, shard)
        tell("skipped", stream.ledger.sentences.values())
        if out:
            count = config.eval.pictures
            pictures = evaluator.paint(now, frozen, stream, shard, count, outputs)
            tables = task.tables(outputs, stream.info.class_names)
            if not shard[0]:
                write_report(out, metrics, pictures, tables)
        return metrics


def tell(kind: str, sentences: Iterable[str]) -> None:
    for sentence in sentences:
        print(f"{kind}: {sentence}", file=sys.stderr)


def main(options) -> None:
    metrics = evaluate(
        options.workdir,
        options.config,
        options.data,
        options.out,
        options.override_card,
        command.names("class_names", options.class_names),
    )
    print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    flags.DEFINE_string("data", "", "a folder or an archive, instead of eval_source")
    flags.DEFINE_string("out", "", "where tables and pictures go; none if not given")
    flags.DEFINE_bool(
        "override_card", False, "let images look otherwise than in training"
    )
    command.define_class_names()
    command.define_flags(
        "a run's work directory, or any other checkpoint",
        "a recipe, FILE[:ARG], instead of the checkpoint's own config",
    )
    command.run(main)
