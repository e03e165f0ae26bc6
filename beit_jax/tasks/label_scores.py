"""How well several labels an image are told, in float64 on the host.

Average precision looks at the order of all images by each class's score, so that a
score an image and class is kept: 4 bytes each. As scikit-learn has it; of classes that
no image has, average precision is not defined, and the mean leaves them out.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from beit_jax.tasks.scorers import Report, joined
from beit_jax.tasks.scores import SCORES, Counts

Array = np.ndarray

THRESHOLD = 0.5  # of a probability, from which on an image is said to have a class


def average_precision(label: Array, score: Array) -> float:
    """The mean precision over recalls: sum of (R_n - R_n-1) P_n; NaN without a label.

    Args:
      label: (N,) bool.
      score: (N,); equal ones are one step.
    """
    order = np.argsort(-score, kind="stable")
    label, score = label[order], score[order]
    found, seen = np.cumsum(label), np.arange(1, len(label) + 1)
    last = np.append(score[1:] != score[:-1], True)  # of those with equal scores
    found, seen = found[last], seen[last]
    if not found[-1]:
        return float("nan")
    gained = np.diff(found, prepend=0) / found[-1]
    return float(np.sum(gained * (found / seen)))


def counts(label: Array, score: Array) -> Counts:
    """Of (N, C) labels and scores."""
    said = score >= THRESHOLD
    return Counts(label.sum(0), said.sum(0), (label & said).sum(0))


class LabelScorer:
    """The `Scorer` of many labels: keeps a score for every image and class."""

    def __init__(self, classes: int, class_names: Sequence[str]):
        """`class_names` are `classes` of them, or none: then classes are numbered."""
        self._names = class_names or [str(number) for number in range(classes)]
        self._outputs: list[Mapping[str, Array]] = []

    def add(self, outputs: Mapping[str, Array], index: Array | None = None) -> None:
        self._outputs.append(outputs)

    def _all(self) -> list[Array]:
        """label (N, C) bool, score (N, C) and loss (N,)."""
        label, score, loss = joined(self._outputs, ("label", "score", "loss"))
        return [label.astype(bool), score, loss.astype(np.float64)]

    def metrics(self) -> dict[str, float]:
        label, score, loss = self._all()
        if not len(label):
            return dict.fromkeys(("loss", "map", "micro_f1", "macro_f1"), np.nan)
        found = counts(label, score)
        micro, macro = _f1(found)
        return {
            "loss": float(loss.mean()),
            "map": _mean(_precisions(label, score)),
            "micro_f1": micro,
            "macro_f1": macro,
        }

    def report(self) -> Report:
        """Average precision and scores of each class."""
        label, score, _ = self._all()
        each = counts(label, score)
        columns = [each.support, _precisions(label, score)]
        columns += [getattr(each, name) for name in SCORES]
        rows = zip(self._names, *(column.tolist() for column in columns), strict=True)
        head = ("class", "support", "average_precision", *SCORES)
        return Report({"per_class": [head, *rows]}, {})


def _precisions(label: Array, score: Array) -> Array:
    """(C,) average precisions."""
    return np.array(list(map(average_precision, label.T, score.T)))


def _mean(values: Array) -> float:
    """Of those that are defined; 0 where none is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0


def _f1(each: Counts) -> tuple[float, float]:
    """Micro, of all decisions together, and macro, the mean over the classes."""
    together = Counts(*(np.array([column.sum()]) for column in each))
    return float(together.f1[0]), float(each.f1.mean())
