"""Tells a person how a run goes."""

import sys
import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from beit_jax.text import utf8


class Meter:
    """Tells a person how a run goes: a bar on a terminal, plain lines elsewhere."""

    def __init__(self, name: str, total: int, quiet: bool = False):
        self._name, self._total, self._quiet = name, total, quiet
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=total, text="")
        self._marks: list[tuple[int, float]] = []  # (step, time): first, second, last

    def __enter__(self) -> "Meter":
        self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        if not self._quiet:
            self._console.print(utf8(text), markup=False, emoji=False)

    def speed(self, step: int, batch_size: int) -> dict[str, float]:
        """Images/s since the last call, evaluating and saving included.

        The call before the first step starts the clock; the stretch after it compiles,
        so that it tells no speed either.
        """
        now, marks = time.perf_counter(), self._marks
        self._marks = [*marks[:2], (step, now)]
        if len(marks) < 2:
            return {}
        before, then = marks[-1]
        return {"train/images_per_second": (step - before) * batch_size / (now - then)}

    def report(
        self, step: int, values: Mapping[str, float], names: tuple[str, ...]
    ) -> None:
        """Shows the step, the values called `names` and, once known, the time left."""
        shown = {name.split("/")[-1]: name for name in values}
        numbers = "  ".join(
            f"{shown[name].removeprefix('train/')} {values[shown[name]]:.4g}"
            for name in (*names, "images_per_second")
            if name in shown
        )
        text = f"{step}/{self._total}  {numbers}{self._left(step)}"
        self._bar.update(self._task, completed=step, text=text)
        if self._bar.disable:
            self.say(f"{self._name}  {text}")

    def _left(self, step: int) -> str:
        if len(self._marks) < 3:  # the first stretch compiles: it tells nothing
            return ""
        (first, start), (last, end) = self._marks[1:]
        seconds = (self._total - step) * (end - start) / (last - first)
        return f"  ETA {seconds // 60:.0f}:{seconds % 60:02.0f}"
