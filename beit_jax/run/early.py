"""Ending a run when a metric has not become better for long enough."""

import math
import pathlib
from collections.abc import Iterable, Mapping

from ml_collections import ConfigDict

from beit_jax.run.writer import history


class EarlyStop:
    """Counts the evaluations in a row whose metric was no better than the best before.

    Better is by more than `min_delta`; what is not a number is not. All that it knows
    it finds in `metrics.jsonl`, so that a run that goes on counts as if it had never
    been interrupted.

    Args:
      settings: the section `early_stop`; without a metric it never ends a run.
      workdir: of the run.
      first: the step from which the run goes on; what was told after it is not heard.

    Attributes:
      reached: whether the run is to end.
    """

    def __init__(self, settings: ConfigDict, workdir: pathlib.Path, first: int):
        self._settings, self._waited, self._best = settings, 0, (-math.inf, 0)
        self.reached = False
        for step, values in history(workdir) if settings.metric else ():
            if step <= first:
                self.hear(values, step)

    def hear(self, values: Mapping[str, float], step: int) -> None:
        """The metrics of an evaluation at `step`."""
        settings = self._settings
        if not settings.metric or settings.metric not in values:
            return
        value = values[settings.metric] * (1 if settings.mode == "max" else -1)
        if value > self._best[0] + settings.min_delta:
            self._best, self._waited = (value, step), 0
        else:
            self._waited += 1
        self.reached = self._waited >= settings.patience

    def hear_all(self, every: Iterable[Mapping[str, float]], step: int) -> bool:
        """Whether that makes the run end."""
        for values in every:
            self.hear(values, step)
        return self.reached

    def __str__(self) -> str:
        """Why the run ends."""
        settings, (value, step) = self._settings, self._best
        best = value if settings.mode == "max" else -value
        return (
            f"{settings.metric} was best at step {step}, {best:.6g}, and in "
            f"{self._waited} evaluations since not better by more than "
            f"{settings.min_delta:g} (early_stop)"
        )
