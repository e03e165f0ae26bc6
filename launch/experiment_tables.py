"""The tables of experiment.py: top-1 on the test split, over the seeds, in percent."""

import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

Results = Mapping[str, Mapping[str, Any]]


def show(results: Results, arms: Iterable[str], labels: Iterable[str]) -> None:
    """Prints both tables in Markdown, as far as there are results."""
    print("Top-1 on the test split, %: mean ± standard deviation of the seeds")
    for table in (finetuning(results, arms, list(labels)), probes(results, arms)):
        table.box = MARKDOWN
        Console(width=160).print(table)


def finetuning(results: Results, arms: Iterable[str], labels: list[str]) -> Table:
    table = Table("fine-tuned from", *(f"{name} labels" for name in labels))
    for arm in arms:
        cells = [collect(results, f"test/{arm}/{name}", top1) for name in labels]
        table.add_row(arm, *map(spread, cells))
    return table


def probes(results: Results, arms: Iterable[str]) -> Table:
    """Linear probes and the votes of the nearest neighbours, for every block."""
    done = next((v for k, v in results.items() if k.startswith("probe/")), {})
    blocks = range(sum(name.startswith("eval/top1_block_") for name in done))
    table = Table("frozen", "", *(f"block {i}" for i in blocks))
    for arm in arms:
        linear = [
            collect(
                results, f"probe/{arm}", lambda r, i=i: r[f"eval/top1_block_{i:02d}"]
            )
            for i in blocks
        ]
        votes = [
            collect(results, f"knn/{arm}", lambda r, i=i: r["top1"][i]) for i in blocks
        ]
        for name, cells in (("linear", linear), ("k-NN", votes)):
            if any(cells):
                table.add_row(arm, name, *(spread(cell, each=False) for cell in cells))
    return table


def top1(metrics: Mapping[str, Any]) -> float:
    return metrics["eval/top1"]


def collect(results: Results, name: str, value: Callable) -> list[float]:
    """A value of every seed that is done, in percent."""
    found = sorted(key for key in results if key.startswith(f"{name}/"))
    return [100 * value(results[key]) for key in found]


def spread(values: list[float], each: bool = True) -> str:
    """Mean ± standard deviation (the values)."""
    if not values:
        return "–"
    text = f"{statistics.mean(values):.1f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.1f}"
    return text + (f" ({', '.join(f'{v:.1f}' for v in values)})" if each else "")
