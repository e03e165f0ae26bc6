"""Where a run's numbers and pictures go: JSON lines, TensorBoard, PNG, the screen."""

import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from beit_jax import __version__
from beit_jax.run import boards
from beit_jax.run.board import Board
from beit_jax.text import UTF8, Table, one_line


class Writer:
    """Appends to `metrics.jsonl`, `notes.txt` and `tensorboard/` in a work directory.

    Others may be told as TensorBoard is, see boards.py.

    Lines are `{"step": 12, "train/loss": 3.4}`. On a restart, lines beyond the restored
    step are dropped, so that every step is told once. Of notes none is dropped, and
    every start begins with the step from which it goes on.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        first_step: int,
        enabled: bool = True,
        others: Sequence[str] = (),
        config: Mapping[str, Any] = MappingProxyType({}),
    ):
        """Writes nothing unless `enabled` (one host of many is).

        Args:
          others: names of BOARDS that are told what TensorBoard is, and `config`.
        """
        self._enabled, self.workdir = enabled, workdir
        if not enabled:
            return
        self._path = workdir / "metrics.jsonl"
        self._notes = workdir / "notes.txt"
        self._pictures = workdir / "pictures"
        self._drop_lines_after(first_step)
        self._lines = self._path.open("a", **UTF8)
        self._boards = [Board(workdir / "tensorboard", first_step + 1)]
        self._boards += boards.begin(others, workdir, config)
        self.note(f"from step {first_step} on, by beit_jax {__version__}")

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_) -> None:
        if self._enabled:
            self._lines.close()
            for board in self._boards:
                board.close()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if not self._enabled:
            return
        self._line({"step": step, **{k: _json_number(v) for k, v in values.items()}})
        for board in self._boards:
            for name, value in values.items():
                board.scalar(name, value, step)
            board.flush()

    def warning(self, step: int, sentence: str) -> None:
        if not self._enabled:
            return
        self._line({"step": step, "warning": sentence})
        for board in self._boards:
            board.text("warning", one_line(sentence), step)
        self.note(f"step {step}: WARNING: {sentence}")

    def note(self, text: str) -> None:
        """What a person should find again of what was said on the screen."""
        if self._enabled:
            with self._notes.open("a", **UTF8) as file:
                file.write(text.rstrip() + "\n")

    def pictures(
        self, step: int, pictures: Mapping[str, np.ndarray], prefix: str = ""
    ) -> None:
        """Name -> (B, H, W, 3) uint8, the batch one below the other in one PNG."""
        for name, rows in pictures.items() if self._enabled else ():
            name = prefix + name
            image = np.concatenate(list(rows))
            for board in self._boards:
                board.image(name, image, step)
            self._pictures.mkdir(exist_ok=True)
            file = self._pictures / f"{name.replace('/', '_')}_{step:07d}.png"
            one_picture(rows).save(file)

    def _line(self, record: Mapping[str, object]) -> None:
        self._lines.write(json.dumps(record) + "\n")
        self._lines.flush()

    def _drop_lines_after(self, step: int) -> None:
        if not self._path.exists():
            return
        lines = _lines(self._path)
        kept = [line for line in lines if _record(line).get("step", step + 1) <= step]
        new = self._path.with_suffix(".new")
        new.write_text("".join(line + "\n" for line in kept), **UTF8)
        os.replace(new, self._path)


def one_picture(rows: np.ndarray) -> Image.Image:
    """(B, H, W, 3) uint8 one below the other; tiny images are enlarged."""
    image = np.concatenate(list(rows))
    scale = max(1, 128 // rows.shape[1])
    size = (image.shape[1] * scale, image.shape[0] * scale)
    return Image.fromarray(image).resize(size, Image.Resampling.NEAREST)


def write_report(
    folder: str | pathlib.Path,
    metrics: Mapping[str, float],
    pictures: Mapping[str, np.ndarray],
    tables: Mapping[str, list[tuple]],
) -> None:
    """Writes metrics.json, NAME.png and NAME.csv."""
    folder = pathlib.Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", **UTF8)
    for name, rows in pictures.items():
        one_picture(rows).save(folder / f"{name}.png")
    for name, rows in tables.items():
        with (folder / f"{name}.csv").open("w", newline="", **UTF8) as file:
            table = Table(file)
            for row in rows:
                table.write(row)


def _lines(path: pathlib.Path) -> list[str]:
    return path.read_text(**UTF8).splitlines()


def _record(line: str) -> dict:
    """What a line of metrics.jsonl holds; {} if a kill has cut it short."""
    try:
        return json.loads(line)
    except ValueError:
        return {}


def _json_number(value: float) -> float | None:
    """JSON knows neither NaN nor infinity."""
    return value if math.isfinite(value) else None


def read_last(workdir: pathlib.Path, *prefixes: str) -> dict[str, float | None]:
    """Of each prefix the newest line of `metrics.jsonl` with names that begin so.

    A number that was not finite is None.
    """
    newest = {}
    for record in _records(workdir):
        for prefix in prefixes:
            found = {k: v for k, v in record.items() if k.startswith(prefix)}
            newest[prefix] = found or newest.get(prefix, {})
    return {k: v for found in newest.values() for k, v in found.items()}


def history(workdir: pathlib.Path) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, values) of every report in `metrics.jsonl` of training and evaluations.

    NaN where a number was not finite.
    """
    for record in _records(workdir):
        step = record.pop("step", None)
        if step is not None and not record.keys() & {"warning", "time/start"}:
            yield step, {k: math.nan if v is None else v for k, v in record.items()}


def times(workdir: pathlib.Path) -> list[dict[str, float]]:
    """What was told of where the time went, with the step of each report."""
    return [record for record in _records(workdir) if "time/start" in record]


def _records(workdir: pathlib.Path) -> list[dict]:
    path = workdir / "metrics.jsonl"
    return [*map(_record, _lines(path))] if path.exists() else []
