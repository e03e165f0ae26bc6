"""Ending a run early without losing a step."""

import signal
import threading

import jax
from jax.experimental import multihost_utils


class Preempted(Exception):
    """The run was asked to stop and has saved; the same command goes on with it."""


class StopSignal:
    """Remembers SIGTERM and SIGINT, so that the loop can save first.

    A second signal acts as it always does. With several hosts JAX's own notice is
    used, by which all of them agree on the step.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __enter__(self) -> "StopSignal":
        self._asked = False
        self._before = {}
        main = threading.current_thread() is threading.main_thread()
        if main and jax.process_count() == 1:
            self._before = {s: signal.signal(s, self._note) for s in self.SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, *_) -> None:
        self._asked = True
        self.__exit__()

    def requested(self, step: int) -> bool:
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked
