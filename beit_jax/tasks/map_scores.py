"""How good a segmenter is: metrics from one confusion matrix of all pixels.

Counts are whole numbers, added on the host in int64: exact for any batch, mesh and
number of hosts. As mmsegmentation has it: a class that is neither a label nor predicted
is left out of means, one that is only predicted has an IoU of 0.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from beit_jax.tasks.scorers import Report
from beit_jax.tasks.scores import MOST, Confusion

Array = np.ndarray


class PerClass(NamedTuple):
    """Scores of each class, (C,) float64; NaN where there is nothing to divide by."""

    iou: Array
    accuracy: Array  # the share of its pixels that are found: recall
    precision: Array
    dice: Array  # the F1 score, too


def per_class(confusion: Array) -> PerClass:
    """Of counts (C, C) of pixels, a row for each label, a column a prediction."""
    both = confusion.diagonal().astype(np.float64)
    labels, found = confusion.sum(axis=1), confusion.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return PerClass(
            both / (labels + found - both),
            both / labels,
            both / found,
            2 * both / (labels + found),
        )


def scalars(confusion: Array) -> dict[str, float]:
    """The metrics to log; NaN where no pixel counts."""
    each, pixels = per_class(confusion), confusion.sum()
    right = confusion.trace() / pixels if pixels else np.nan
    return {
        "miou": _mean(each.iou),
        "pixel_accuracy": float(right),
        "mean_accuracy": _mean(each.accuracy),
        "mean_dice": _mean(each.dice),
    }


def _mean(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


class MapScorer:
    """The `Scorer` of a segmenter: adds up counts of pixels and their losses."""

    def __init__(self, classes: int, class_names: Sequence[str]):
        """`class_names` are `classes` of them, or none: then classes are numbered."""
        self._confusion = np.zeros((classes, classes), np.int64)
        self._nll, self._names = 0.0, class_names or tuple(map(str, range(classes)))

    def add(self, outputs: Mapping[str, Any], index: Array | None = None) -> None:
        self._confusion += np.asarray(outputs["confusion"], np.int64)
        self._nll += float(outputs["nll"])

    def metrics(self) -> dict[str, float]:
        pixels = self._confusion.sum()
        loss = self._nll / pixels if pixels else np.nan
        return {"loss": float(loss), **scalars(self._confusion)}

    def report(self) -> Report:
        each, pixels = per_class(self._confusion), self._confusion.sum(axis=1)
        share = pixels / max(pixels.sum(), 1)
        heads = ("class", *PerClass._fields, "pixels", "share")
        columns = (self._names, *each, pixels, share)
        rows = [heads, *zip(*map(_plain, columns), strict=True)]
        drawn = len(self._names) <= MOST
        chart = {"confusion": Confusion(self._confusion, self._names)}
        return Report({"per_class": rows}, chart if drawn else {})


def _plain(column: Sequence) -> list:
    return column.tolist() if isinstance(column, np.ndarray) else list(column)
