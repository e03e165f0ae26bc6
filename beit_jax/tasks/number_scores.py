"""How near predicted numbers are, in float64 on the host; as scikit-learn has it."""

from collections.abc import Mapping, Sequence

import numpy as np

from beit_jax.tasks.scorers import Report, joined

Array = np.ndarray

SCORES = ("mae", "rmse", "r2")


def scores(wanted: Array, found: Array) -> dict[str, Array]:
    """SCORES of (N, T) numbers, (T,) each.

    R2 of numbers that are all the same is 1 where all are met, else 0.
    """
    error = found - wanted
    square = np.square(error).sum(0)
    spread = np.square(wanted - wanted.mean(0)).sum(0)
    none = (square > 0) * 1.0  # so that 1 - none is R2 without a spread
    missed = np.divide(square, spread, out=none, where=spread > 0)
    return {
        "mae": np.abs(error).mean(0),
        "rmse": np.sqrt(square / len(error)),
        "r2": 1 - missed,
    }


class NumberScorer:
    """The `Scorer` of numbers: keeps a row an image."""

    def __init__(self, targets: Sequence[str]):
        self._targets = targets
        self._outputs: list[Mapping[str, Array]] = []

    def add(self, outputs: Mapping[str, Array], index: Array | None = None) -> None:
        self._outputs.append(outputs)

    def _all(self) -> list[Array]:
        """wanted (N, T), found (N, T) and loss (N,), float64."""
        rows = joined(self._outputs, ("wanted", "found", "loss"))
        return [row.astype(np.float64) for row in rows]

    def metrics(self) -> dict[str, float]:
        """Of several targets the mean of each one's."""
        wanted, found, loss = self._all()
        if not len(wanted):
            return dict.fromkeys(("loss", *SCORES), np.nan)
        each = scores(wanted, found)
        means = {name: float(values.mean()) for name, values in each.items()}
        return {"loss": float(loss.mean())} | means

    def report(self) -> Report:
        """The scores of each target."""
        wanted, found, _ = self._all()
        columns = (values.tolist() for values in scores(wanted, found).values())
        rows = zip(self._targets, *columns, strict=True)
        return Report({"per_target": [("target", *SCORES), *rows]}, {})
