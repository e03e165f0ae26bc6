"""Ends a run that hangs, and shows where it does."""

import faulthandler
import threading

from beit_jax import hosts


class Watchdog:
    """A thread that ends the process unless `beat` is called every few minutes.

    The clock starts with the first call: to compile may take as long as it likes. It
    stands still while the process does, as after Ctrl-Z.

    Args:
      minutes: without a call; 0: any.
    """

    def __init__(self, minutes: float):
        self._minutes, self._silent = minutes, 0.0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def beat(self) -> None:
        self._silent = 0.0
        if self._thread is None and self._minutes:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._over.set()

    def _watch(self) -> None:
        look = min(1.0, self._minutes * 60 / 4)
        while not self._over.wait(look):
            self._silent += look
            if self._silent > self._minutes * 60:
                faulthandler.dump_traceback(all_threads=True)
                hosts.end(
                    hosts.HUNG,
                    f"no step for {self._minutes:g} minutes: the run hangs where the "
                    "stacks of its threads show. The same command goes on from the "
                    "last save; log.watchdog_minutes says how long to wait, 0 for ever",
                )
