"""Metrics over the steps of runs."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from beit_jax.charts.figure import label, to_image

_COLOURS = 10  # of Matplotlib's cycle; then the lines are drawn in another style
_LETTERS = 60  # of the name of a run or a metric
_STYLES = ("-", "--", ":", "-.")

Curve = tuple[np.ndarray, np.ndarray]  # steps, values


def draw(curves: Mapping[str, Mapping[str, Curve]]) -> np.ndarray:
    """Metric -> run -> curve, drawn as a panel for each metric, a line for each run.

    Returns:
      (H, W, 3) uint8.
    """
    figure = Figure(figsize=(5 * len(curves), 3.6), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    colours: dict[str, int] = {}  # a run has the same one in all panels
    for axes, (metric, runs) in zip(panels, curves.items(), strict=True):
        names = [label(run, _LETTERS) for run in runs]
        for run, (steps, values) in runs.items():
            number = colours.setdefault(run, len(colours))
            style = _STYLES[number // _COLOURS % len(_STYLES)]
            # A metric that was told once or twice would be no line.
            marker = "o" if len(steps) < 3 else None
            look = {"color": f"C{number % _COLOURS}", "ls": style, "marker": marker}
            axes.plot(steps, values, linewidth=1.6, markersize=4, **look)
        axes.set(xlabel="step", ylabel=label(metric, _LETTERS))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(axes.get_lines(), names, fontsize=8)  # those with a _, too
    return to_image(figure)
