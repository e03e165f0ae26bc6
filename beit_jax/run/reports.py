"""What a run measures of itself, and tells: its steps, and its evaluations."""

import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from beit_jax import hosts
from beit_jax.run.alarms import Alarms
from beit_jax.run.early import EarlyStop
from beit_jax.run.evaluator import Evaluation, Evaluator
from beit_jax.run.finite import Finite
from beit_jax.run.meter import Meter
from beit_jax.run.parts import Parts
from beit_jax.run.stop import StopSignal
from beit_jax.run.writer import Writer, history
from beit_jax.tasks.scorers import Scorer


class Seen(NamedTuple):
    """An evaluation that was finished."""

    test: Evaluation
    metrics: dict[str, float]
    scorer: Scorer


class Reports:
    """Tells by a writer and on the screen, and says aloud what is wrong.

    Args:
      parts: of the run that `config` describes.
      shard: this host's number and the number of hosts.
      stop: is asked in evaluations whether to leave the rest.
      early: hears what evaluations give, and may end the run.
    """

    def __init__(
        self,
        config: ConfigDict,
        parts: Parts,
        evaluator: Evaluator,
        writer: Writer,
        meter: Meter,
        stop: StopSignal,
        early: EarlyStop,
        shard: tuple[int, int],
    ):
        self._config, self._task, self._stream = config, parts.task, parts.stream
        self._evaluator, self._writer, self._meter = evaluator, writer, meter
        self._stop, self._early, self._shard = stop, early, shard
        self._window = []  # sums of the steps since the last report
        left_out = config.optim.max_left_out
        self._finite = Finite(left_out, parts.stream, writer.workdir)
        self._alarms = Alarms(parts.task, config.optim, parts.plan)
        for step, values in history(writer.workdir):  # what was told until now
            self._alarms.hear(values, step)

    def add(self, sums) -> None:
        """Takes in what the compiled step gave."""
        self._window.append(sums)

    def training(self, step: int) -> None:
        """Tells of all steps since the last report, `step` being the last of them.

        Raises:
          FloatingPointError: steps that were not finite, more than may be left out.
          DataError: more examples were skipped, by all hosts, than may be.
        """
        if not self._window:
            return
        values = self._digest(step)
        values |= self._meter.speed(step, self._config.data.batch_size)
        if skipped := len(hosts.union(self._stream.ledger.sentences)):
            self._stream.ledger.check(skipped)
            values["train/skipped"] = skipped
        self._tell(values, step)

    def _digest(self, step: int) -> dict[str, float]:
        window, scorer = jax.device_get(self._window), self._task.train_scorer()
        first = step - len(window) + 1
        taken = [s for at, s in enumerate(window, first) if self._finite(s, at)]
        for sums in taken:
            scorer.add(sums)
        values = scorer.metrics() if taken else {}
        if len(taken) < len(window):
            values["steps_left_out"] = len(window) - len(taken)
        self._window.clear()
        return {f"train/{name}": value for name, value in values.items()}

    def measure(
        self, state, frozen, tests: Iterable[Evaluation], step: int
    ) -> list[Seen]:
        """Does the evaluations; not all of them if asked to stop."""
        every = []
        for test in tests:
            seen = self._evaluator.measure(
                state, frozen, test, self._shard, self._stop.requested
            )
            if seen is None:
                break
            self._tell(seen[0], step)
            for sentence in self._early.hear(seen[0], step):
                self._writer.note(sentence)
                self._meter.say(sentence)
            every.append(Seen(test, *seen))
        return every

    def draw(self, state, frozen, every: Sequence[Seen], step: int) -> None:
        """Pictures and charts of evaluations."""
        count = self._config.eval.pictures
        for test, _, scorer in every:
            at = (state, frozen, test, self._shard, count, scorer)
            self._writer.pictures(step, self._evaluator.paint(*at), test.prefix)

    def _tell(self, values: dict[str, float], step: int) -> None:
        self._writer.scalars(step, values)
        self._meter.report(step, values, self._task.headline)
        self.warn(self._alarms.hear(values, step), step)

    def warn(self, sentences: Iterable[str], step: int) -> None:
        for sentence in sentences:
            self._writer.warning(step, sentence)
            self._meter.say(f"WARNING: {sentence}")


def owed(
    due: Sequence[Evaluation], workdir: pathlib.Path, step: int
) -> list[Evaluation]:
    """Those of the evaluations due at a restored step that a signal has cut short."""
    told = [values for at, values in history(workdir) if at == step > 0]
    names = {name.split("/")[0] for values in told for name in values}
    return [test for test in due if told and test.name not in names]
