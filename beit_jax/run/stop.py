"""Ending a run early without losing a step."""

import os
import signal
import threading
import time

import jax
from jax.experimental import multihost_utils

from beit_jax.run.watchdog import Watchdog

GRACE = 3.0  # seconds in which signals count as one: launchers like to send two


class Preempted(Exception):
    """The run was asked to stop and has saved; the same command goes on with it."""


class _Stopped(KeyboardInterrupt):
    """What no library takes for an error of its own."""


class StopSignal:
    """Remembers SIGTERM, SIGINT and SIGHUP, so that the loop can save first.

    Before its first step there is nothing to save, and the run ends at once. A signal
    that comes GRACE after the first acts as it always does. With several hosts JAX's
    own notice of SIGTERM is used, by which all of them agree on the step; the other
    signals are passed on as such.

    Args:
      watchdog_minutes: without a question whether to stop, after which the run is taken
        to hang; 0: never.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self, watchdog_minutes: float = 0.0):
        self._watchdog = Watchdog(watchdog_minutes)
        self._asked, self._first = False, None
        self._questions = 0
        self._before = {}

    def __enter__(self) -> "StopSignal":
        self._several = jax.process_count() > 1
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                before = signal.getsignal(number)
                ignored = number == signal.SIGHUP and before == signal.SIG_IGN  # nohup
                if not ignored and not (self._several and number == signal.SIGTERM):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind, *_) -> None:
        self._watchdog.close()
        self._let_go()
        if kind is _Stopped:
            raise Preempted(
                "stopped before its first step; the same command begins there again"
            ) from None

    @classmethod
    def ignore(cls) -> None:
        """For a process that is stopping: one more signal leaves its exit code."""
        for number in cls.SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _let_go(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _) -> None:
        now = time.monotonic()
        if self._first is not None:
            if now - self._first > GRACE:
                self._let_go()
                signal.raise_signal(number)
            return
        self._first = now
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
        elif not self._questions:
            raise _Stopped
        else:
            self._asked = True

    def requested(self) -> bool:
        """Whether to stop; to be asked after every step and often in an evaluation.

        All hosts must ask equally often.
        """
        self._questions += 1
        self._watchdog.beat()
        if self._several and not self._asked:
            self._asked = multihost_utils.reached_preemption_sync_point(self._questions)
        return self._asked
