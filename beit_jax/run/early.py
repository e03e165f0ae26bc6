"""Ending a run when a metric has not become better for long enough."""

import math
import pathlib
from collections.abc import Mapping

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
      end: the step at which the run ends otherwise.

    Attributes:
      end: the last step of the run. It is the one after the evaluation that decides, to
        be done as any last step: with all evaluations, and saved.
      why: what to add when it is told that the run is complete.
    """

    def __init__(
        self, settings: ConfigDict, workdir: pathlib.Path, first: int, end: int
    ):
        self._settings, self._waited, self._best = settings, 0, (-math.inf, 0)
        self.end, self.why = end, ""
        for step, values in history(workdir) if settings.metric else ():
            if step <= first:
                self.hear(values, step)

    def hear(self, values: Mapping[str, float], step: int) -> list[str]:
        """The metrics of an evaluation at `step`; returns what is to be told of it."""
        settings = self._settings
        if not settings.metric or settings.metric not in values:
            return []
        value = values[settings.metric] * (1 if settings.mode == "max" else -1)
        if value > self._best[0] + settings.min_delta:
            self._best, self._waited = (value, step), 0
            return []
        self._waited += 1
        if self._waited < settings.patience or step + 1 >= self.end:
            return []
        self.end, self.why = step + 1, f": {self._reason()}"
        return [f"stops early, at step {self.end}{self.why}"]

    def _reason(self) -> str:
        settings, (value, step) = self._settings, self._best
        best = value if settings.mode == "max" else -value
        return (
            f"{settings.metric} was best at step {step}, {best:.6g}, and in "
            f"{self._waited} evaluations since not better by more than "
            f"{settings.min_delta:g} (early_stop)"
        )
