"""Passes over splits: what a task measures of each, and pictures of it."""

import importlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from beit_jax import lookup, sharding
from beit_jax.data import pipeline, sources
from beit_jax.data.pipeline import EvalStream
from beit_jax.ranges import Count
from beit_jax.run.state import TrainState
from beit_jax.tasks import scores
from beit_jax.tasks.base import Context
from beit_jax.tasks.scorers import Scorer

Tree = Any

PLAIN = "eval"  # the evaluation on `data.eval_source`
ALL = "all"  # stands for the names of all others
# A kind of chart -> the module of charts/ whose `draw` takes its fields.
CHARTS = {scores.Confusion: "confusion", scores.Reliability: "reliability"}


class Evaluation(NamedTuple):
    """A split to measure."""

    name: str  # its metrics are NAME/...: PLAIN, or eval_NAME of `evals`
    stream: EvalStream
    every: int  # steps of training between two passes; 0: at the end only

    @property
    def prefix(self) -> str:
        """What its pictures' names begin with beside those of others."""
        return "" if self.name == PLAIN else f"{self.name}/"

    def measures(self, metric: str) -> bool:
        return metric.split("/")[0] == self.name


def evaluations(config: ConfigDict, task, once: bool = False) -> list[Evaluation]:
    """The one on `data.eval_source`, if that names any, and then those of `evals`.

    Args:
      once: there will be no second pass over any of them.

    Raises:
      ValueError: a name, a setting or a source that cannot be used.
    """
    splits = {}
    if config.data.eval_source:
        splits[PLAIN] = config.data.eval_source, config.eval.every_steps
    for name, section in config.evals.items():
        where = f"config.evals.{name}"
        if not name.isidentifier() or name == ALL:
            raise ValueError(
                f"{where}: a name has letters, digits and '_', begins with no digit "
                f"and is not {ALL!r}"
            )
        if not isinstance(section, ConfigDict):
            raise ValueError(f"{where}={section!r} must be a section with a source")
        splits[f"{PLAIN}_{name}"] = lookup.call(split, section, where)
    data, spec, seed = task.eval_data(config.data), task.eval_spec, config.seed
    return [
        Evaluation(
            name,
            pipeline.eval_stream(
                data, spec, seed, sources.build(source), again=every > 0 and not once
            ),
            every,
        )
        for name, (source, every) in splits.items()
    ]


def split(source: Mapping[str, Any], every_steps: Count = 0) -> tuple[Mapping, int]:
    """A further evaluation, whose metrics are eval_NAME/...

    Args:
      source: name and settings, as of `data.eval_source`.
      every_steps: between two passes; 0: at the end only.
    """
    return source, every_steps


def compiled(
    method: Callable[[Tree, Tree, Context], Tree], mesh: Mesh, seed: int
) -> Callable[[TrainState, Tree, Mapping[str, np.ndarray]], Tree]:
    """A task's `method` with a state's (averaged) parameters, compiled once.

    (state, frozen, this host's part of a batch) -> what it makes of the whole batch.
    """

    def call(state: TrainState, frozen: Tree, batch: Tree, key):
        rng = jax.random.fold_in(key, state.step)
        params = state.eval_params
        ctx = Context(state.step, rng, state.model_state, frozen, params)
        return method(params, batch, ctx)

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

        self._task, self._mesh = task, mesh
        self._measured = compiled(measured, mesh, seed)
        self._pictures = compiled(task.pictures, mesh, seed)

    def measure(
        self,
        state: TrainState,
        frozen: Tree,
        evaluation: Evaluation,
        shard: tuple[int, int],
        stopped: Callable[[], bool] = lambda: False,
    ) -> tuple[dict[str, float], Scorer] | None:
        """Metrics over the split; independent of batch size, padding, mesh, hosts.

        NAME/examples is how many were counted: all, but for those that were skipped.

        Args:
          shard: this host's number and the number of hosts.
          stopped: is asked before every batch whether to leave the rest.

        Returns:
          The metrics, and the scorer that made them and has more to tell; None if
          `stopped`.

        Raises:
          DataError: more was skipped, by all hosts, than may be.
        """
        stream, counted, step = evaluation.stream, 0.0, -1
        scorer = self._task.scorer(stream.info)
        # Every host gets the outputs of all, and knows without asking whose they are.
        order = sharding.row_order(stream.plan.batch_size, self._mesh)
        batches = itertools.takewhile(lambda _: not stopped(), stream.batches(shard))
        begun = (self._measured(state, frozen, batch) for batch in batches)
        for step, (outputs, count) in enumerate(one_behind(begun)):
            scorer.add(outputs, stream.index(step)[order])
            counted += float(count)
        if step + 1 < stream.steps_per_epoch:
            return None
        metrics = scorer.metrics() | {"examples": counted}
        if skipped := stream.info.num_examples - counted:
            stream.ledger.check(int(skipped))
            metrics["skipped"] = skipped
        return {f"{evaluation.name}/{k}": v for k, v in metrics.items()}, scorer

    def paint(
        self,
        state: TrainState,
        frozen: Tree,
        evaluation: Evaluation,
        shard: tuple[int, int],
        count: int,
        scorer: Scorer,
    ) -> dict[str, np.ndarray]:
        """Name -> (1, H, W, 3): what was learnt, and the charts of `scorer`.

        Of the task's pictures `count`, of examples from all over the split; nothing if
        that is 0. The first host alone draws.
        """
        if not count:
            return {}
        stream = evaluation.stream
        batch = stream.spread(count, shard)
        pictures = self._pictures(state, frozen, batch)
        order = sharding.row_order(stream.plan.batch_size, self._mesh)
        rows = np.argsort(order)[: min(count, len(batch["weight"]))]
        shown = {name: np.asarray(image[rows]) for name, image in pictures.items()}
        if shard[0]:
            return {}
        seen = batch["weight"][: len(rows)] > 0  # those that there are, and were read
        labels = batch["label"][: len(rows)][seen] if "label" in batch else ()
        names = [stream.info.class_names[label] for label in labels]
        about = f"{stream.info.name}, step {int(state.step)}"
        shown = {
            name: self._sheet(name, image[seen], about, names)
            for name, image in shown.items()
            if seen.any()
        }
        return shown | draw(scorer.report().charts)

    def _sheet(
        self, name: str, rows: np.ndarray, about: str, names: Sequence[str]
    ) -> np.ndarray:
        """(1, H, W, 3): rows of a task's pictures, and what they show."""
        sheet = importlib.import_module("beit_jax.charts.sheet")
        columns = self._task.columns.get(name, ())
        return sheet.draw(rows, f"{name}: {about}", columns, names)[None]


def one_behind(begun: Iterable[Tree]) -> Iterator[Tree]:
    """What devices compute, each fetched when the next has been begun.

    They never wait for the host, nor does it let more than two pile up.
    """
    for one, _ in itertools.pairwise(itertools.chain(begun, [None])):
        yield jax.device_get(one)


def draw(charts: Mapping[str, tuple]) -> dict[str, np.ndarray]:
    """Charts of a `Report` -> name -> (1, H, W, 3) uint8."""
    return {name: _drawn(chart)[None] for name, chart in charts.items()}


def _drawn(chart: tuple) -> np.ndarray:
    # Not imported before something is drawn: Matplotlib takes half a second.
    module = importlib.import_module(f"beit_jax.charts.{CHARTS[type(chart)]}")
    return module.draw(*chart)
