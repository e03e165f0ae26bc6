"""Draws metrics of runs: `python -m beit_jax.curves RUN [RUN ...] --metric train/loss`.

Reads the metrics.jsonl of work directories. --metric names one or more, with commas
between them; a run that has not told one of them has no line there.
"""

import pathlib
import sys
from collections.abc import Sequence

import numpy as np
from PIL import Image

from beit_jax import command, stores
from beit_jax.charts import curves as chart
from beit_jax.lookup import nearest
from beit_jax.run.writer import history

Curve = chart.Curve


def read(workdir: str | pathlib.Path) -> dict[str, Curve]:
    """Metric -> its curve; a number that was not finite is NaN.

    Raises:
      ValueError: no metrics there.
    """
    if stores.is_remote(workdir):
        workdir = stores.copied(f"{workdir}/metrics.jsonl").parent
    workdir = pathlib.Path(workdir).expanduser()
    told: dict[str, list[tuple[int, float]]] = {}
    for step, values in history(workdir):
        for name, value in values.items():
            told.setdefault(name, []).append((step, value))
    if not told:
        raise ValueError(
            f"no metrics in {workdir}/metrics.jsonl; name the work directory of a run"
        )
    return {name: tuple(np.array(points).T) for name, points in told.items()}


def smoothed(curve: Curve, points: int) -> Curve:
    """Each value the mean of itself and those before it, `points` where there are.

    What is not finite is left out of the mean.
    """
    steps, values = curve
    windows = [values[max(0, i + 1 - points) : i + 1] for i in range(len(values))]
    finite = [window[np.isfinite(window)] for window in windows]
    means = [window.mean() if len(window) else np.nan for window in finite]
    return steps, np.array(means)


def collect(
    runs: Sequence[str], metrics: Sequence[str], smooth: int = 1
) -> dict[str, dict[str, Curve]]:
    """Metric -> name of a run -> its curve, for all runs that have it.

    Raises:
      ValueError: a metric that no run has.
    """
    told = dict(zip(_labels(runs), map(read, runs), strict=True))
    known = {name for found in told.values() for name in found}
    for metric in metrics:
        if metric not in known:
            raise ValueError(
                f"no run has told {metric!r}{nearest(metric, known)}; there are "
                f"{', '.join(sorted(known))}"
            )
    return {
        metric: {
            run: smoothed(found[metric], smooth)
            for run, found in told.items()
            if metric in found
        }
        for metric in metrics
    }


def _labels(runs: Sequence[str]) -> list[str]:
    """The runs' last names, or all of their paths when those do not tell them apart."""
    names = [pathlib.Path(run).name for run in runs]
    return names if len(set(names)) == len(names) else list(runs)


def main(options, *runs: str) -> None:
    out = stores.on_disk(options.out, "--out")
    if out.suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"--out={out} does not end as a picture does; in .png, say")
    curves = collect(runs, options.metric, options.smooth)
    for metric, lines in curves.items():
        for run in _labels(runs):
            if run not in lines:
                print(f"{run} has not told {metric!r}: it has no line", file=sys.stderr)
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(chart.draw(curves)).save(out)
    print(f"wrote {out}")


if __name__ == "__main__":
    command.run("curves", main)
