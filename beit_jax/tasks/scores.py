"""How good a classifier is: metrics from one row an example, in float64 on the host.

Sums of batches would not do: precision and calibration are no means over examples. Rows
are small (ten numbers an image), so that 22 000 classes cost no more than ten; nothing
here holds an array of examples by classes.

As scikit-learn has it with `zero_division=0`: what would be divided by zero is 0, and
macro averages are over the classes that occur as a label or as a prediction. Where
classes are equally likely the one with the lower number is predicted.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from beit_jax.tasks.scorers import Report, joined

Array = np.ndarray

BINS = 15
MOST = 1300  # classes of a drawn confusion matrix: of more, each has less than a pixel


class Rows(NamedTuple):
    """What is known of N examples.

    Attributes:
      label: (N,) int.
      best: (N, K) int, the most likely classes, best first.
      nll: (N,) float64, -log of the probability of the label, in nats.
      confidence: (N,) float64, the probability of the best class.
    """

    label: Array
    best: Array
    nll: Array
    confidence: Array

    @property
    def predicted(self) -> Array:
        """(N,) int."""
        return self.best[:, 0]

    @property
    def hit(self) -> Array:
        """(N,) bool, whether the best class is the label."""
        return self.predicted == self.label


def gather(outputs: Iterable[Mapping[str, Array]]) -> Rows:
    """The rows of many batches as one, see `scorers.joined`."""
    rows = Rows(*joined(outputs, Rows._fields))
    return rows._replace(
        nll=rows.nll.astype(np.float64), confidence=rows.confidence.astype(np.float64)
    )


def scalars(rows: Rows, classes: int) -> dict[str, float]:
    """The metrics to log.

    Micro averages are missing: with one label an image they all equal top1.
    """
    found = (rows.best == rows.label[:, None]).any(axis=1)
    macro = averages(per_class(rows, classes))["macro"]
    return {
        "loss": _mean(rows.nll),
        "top1": _mean(rows.hit),
        "top5": _mean(found),
        "ece": calibration_error(calibration(rows)),
        **{f"macro_{score}": value for score, value in macro.items()},
    }


def _mean(values: Array) -> float:
    return float(np.mean(values, dtype=np.float64)) if len(values) else float("nan")


class Counts(NamedTuple):
    """What is counted of each class, (C,) int64 each, and the scores that follow.

    Attributes:
      support: examples of a class.
      predicted: predictions of a class.
      right: predictions of a class that are right.
    """

    support: Array
    predicted: Array
    right: Array

    @property
    def precision(self) -> Array:
        """(C,) float64, the share of the predictions that are right."""
        return _share(self.right, self.predicted)

    @property
    def recall(self) -> Array:
        """(C,) float64, the share of the examples that are found."""
        return _share(self.right, self.support)

    @property
    def f1(self) -> Array:
        """(C,) float64, the harmonic mean of the two."""
        return _share(2 * self.right, self.support + self.predicted)


def per_class(rows: Rows, classes: int) -> Counts:
    """Counts for all of the classes, whether they occur or not."""
    return Counts(
        *(
            np.bincount(numbers, minlength=classes)
            for numbers in (rows.label, rows.predicted, rows.label[rows.hit])
        )
    )


SCORES = ("precision", "recall", "f1")


def averages(each: Counts) -> dict[str, dict[str, float]]:
    """SCORES over all decisions, over classes alike, and over classes by support."""
    weights = {
        "macro": each.support + each.predicted > 0,
        "weighted": each.support,
    }
    micro = float(_share(each.right.sum(), each.support.sum()))
    return {"micro": dict.fromkeys(SCORES, micro)} | {
        name: {
            score: float(_share(getattr(each, score) @ weight, weight.sum()))
            for score in SCORES
        }
        for name, weight in weights.items()
    }


def _share(part: Array, whole: Array) -> Array:
    """part / whole in float64, 0 where there is no whole."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def confusion(rows: Rows, classes: int) -> Array:
    """(C, C) int64 counts, a row for each label, a column for each prediction."""
    pair = rows.label.astype(np.int64) * classes + rows.predicted
    return np.bincount(pair, minlength=classes**2).reshape(classes, classes)


def confused_pairs(rows: Rows) -> list[tuple[int, int, int]]:
    """(label, prediction, count), in order, of the pairs that occur; of any size."""
    pairs = np.stack([rows.label, rows.predicted], axis=1)
    pairs, counts = np.unique(pairs, axis=0, return_counts=True)
    return list(zip(*pairs.T.tolist(), counts.tolist(), strict=True))


class Calibration(NamedTuple):
    """The examples by confidence, in bins; (bins,) each, 0 where a bin is empty.

    Attributes:
      count: examples in a bin.
      accuracy: share of them that are right.
      confidence: their mean confidence.
    """

    count: Array
    accuracy: Array
    confidence: Array


def calibration(rows: Rows, bins: int = BINS) -> Calibration:
    """Bins of equal width, each without its lower and with its upper edge.

    Guo et al., On Calibration of Modern Neural Networks (arXiv:1706.04599); what has a
    confidence of 0 is in the first bin.
    """
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    bin_of = np.searchsorted(edges, rows.confidence)
    count = np.bincount(bin_of, minlength=bins)

    def mean(values: Array) -> Array:
        return _share(np.bincount(bin_of, values, minlength=bins), count)

    return Calibration(count, mean(rows.hit), mean(rows.confidence))


def calibration_error(found: Calibration) -> float:
    """ECE: the mean distance of confidence and accuracy, bins by their examples."""
    gaps = np.abs(found.accuracy - found.confidence)
    return float(_share(found.count @ gaps, found.count.sum()))


class Confusion(NamedTuple):
    """A chart: (C, C) counts, a row for each label; names of the classes, or none."""

    counts: Array
    class_names: Sequence[str]


class Reliability(NamedTuple):
    """A chart: a `Calibration`, and the error that follows from it."""

    count: Array
    accuracy: Array
    confidence: Array
    error: float


class ClassScorer:
    """The `Scorer` of a classifier: keeps a row an example, see `gather`."""

    def __init__(self, classes: int, class_names: Sequence[str]):
        """`class_names` are `classes` of them, or none: then classes are numbered."""
        self._classes, self._class_names = classes, class_names
        self._outputs: list[Mapping[str, Array]] = []

    def add(self, outputs: Mapping[str, Array], index: Array | None = None) -> None:
        self._outputs.append(outputs)

    def metrics(self) -> dict[str, float]:
        return scalars(gather(self._outputs), self._classes)

    def report(self) -> Report:
        """Scores of each class and averaged, and which class was taken for which.

        The table of confusion tells the cells of the matrix that are not 0: of many
        classes they are few. It is drawn unless classes are too many.
        """
        rows = gather(self._outputs)
        bins = calibration(rows)
        charts = {"reliability": Reliability(*bins, calibration_error(bins))}
        if self._classes <= MOST:
            counts = confusion(rows, self._classes)
            charts["confusion"] = Confusion(counts, self._class_names)
        return Report(self._tables(rows), charts)

    def _tables(self, rows: Rows) -> dict[str, list[tuple]]:
        names = self._class_names or [str(number) for number in range(self._classes)]
        each = per_class(rows, self._classes)
        columns = [each.support, *(getattr(each, score) for score in SCORES)]
        numbers = zip(names, *(column.tolist() for column in columns), strict=True)
        return {
            "per_class": [("class", "support", *SCORES), *numbers],
            "averages": [("average", *SCORES)]
            + [(name, *values.values()) for name, values in averages(each).items()],
            "confusion": [("class", "predicted", "count")]
            + [
                (names[label], names[other], n)
                for label, other, n in confused_pairs(rows)
            ],
        }
