"""TensorBoard's event files, written at once by whoever calls.

tensorboardX's own writer hands events to a thread; should that die, of a full disk say,
its queue fills up and the run hangs for ever. Here the error is raised where it arises.
"""

import pathlib
import time

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog


class Board:
    """One event file in `folder`; raises OSError where that cannot be written."""

    def __init__(self, folder: pathlib.Path, first_step: int):
        """TensorBoard forgets what earlier files tell of `first_step` and after it."""
        folder.mkdir(exist_ok=True)
        self._events = EventsWriter(str(folder / "events"))
        start = SessionLog(status=SessionLog.START)
        self._add(step=first_step, session_log=start)

    def close(self) -> None:
        self._events.close()

    def flush(self) -> None:
        self._events.flush()

    def scalar(self, name: str, value: float, step: int) -> None:
        self._add(step=step, summary=summary.scalar(name, value))

    def text(self, name: str, text: str, step: int) -> None:
        self._add(step=step, summary=summary.text(name, text))

    def image(self, name: str, image: np.ndarray, step: int) -> None:
        """(H, W, 3) uint8"""
        made = summary.image(name, image, dataformats="HWC")
        self._add(step=step, summary=made)

    def _add(self, **fields) -> None:
        self._events.write_event(Event(wall_time=time.time(), **fields))
