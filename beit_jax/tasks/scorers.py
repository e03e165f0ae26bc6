"""What remembers the outputs of many batches: metrics, tables and charts of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

Array = np.ndarray
Numbers = dict[str, float]


class Report(NamedTuple):
    """What there is to see of an evaluation besides its metrics, as data.

    Attributes:
      tables: name -> rows, the first with the names of the columns.
      charts: name -> a NamedTuple of the kind of chart, which run/evaluator.py draws.
    """

    tables: Mapping[str, list[tuple]]
    charts: Mapping[str, tuple]


class Scorer(Protocol):
    """Made anew for each pass; gets what a task computed of a batch, then the next."""

    def add(self, outputs: Mapping[str, Any], index: Array | None = None) -> None:
        """Takes in a batch, as NumPy arrays.

        Args:
          outputs: what `Task.eval_step` gave, or the sums of a training step.
          index: (B,) int64, which examples of the source they are of, -1 where none is;
            None for sums of training.
        """

    def metrics(self) -> Numbers:
        """Of all that was added."""

    def report(self) -> Report:
        """What else there is to see of all that was added."""


def joined(outputs: Iterable[Mapping[str, Array]], names: Sequence[str]) -> list[Array]:
    """The named rows of many batches as one each, without those that weigh nothing.

    Args:
      outputs: each with those names and weight (B,), 1 for an example and 0 for what
        fills the batch; all have a leading axis of the batch.
    """
    outputs = list(outputs)
    *rows, weight = (
        np.concatenate([np.asarray(batch[name]) for batch in outputs])
        for name in (*names, "weight")
    )
    return [row[weight > 0] for row in rows]


class Means:
    """Adds up (sum, weight) pairs in float64, and tells their ratios."""

    def __init__(
        self, derive: Callable[[Mapping, Mapping], Numbers] = lambda *_: {}
    ) -> None:
        """`derive` makes more metrics of the means and of the weights, by name.

        What is no scalar, a share of each token say, is told by `derive` alone.
        """
        self._derive = derive
        self._sums: dict[str, Any] = {}
        self._weights: dict[str, Any] = {}

    def add(self, outputs: Mapping[str, Any], index: Array | None = None) -> None:
        for name, (value, weight) in outputs.items():
            for totals, part in ((self._sums, value), (self._weights, weight)):
                totals[name] = totals.get(name, 0.0) + np.asarray(part, np.float64)

    def metrics(self) -> Numbers:
        """NaN where nothing counted."""
        with np.errstate(divide="ignore", invalid="ignore"):
            means = {k: np.divide(v, self._weights[k]) for k, v in self._sums.items()}
        numbers = {k: float(mean) for k, mean in means.items() if not np.ndim(mean)}
        return numbers | self._derive(means, self._weights)

    def report(self) -> Report:
        return Report({}, {})
