"""A few numbers of a run, that keep its arrays from changing unnoticed."""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.parity.ours import GRADIENT

FOLDER = pathlib.Path(__file__).parents[1] / "golden"
FIRST = 8


def digest(arrays: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """What -> L2 norm, sum of the numbers times cos(0, 1, 2, ...), the first numbers.

    The sum moves with the order of the numbers, the norm does not. Gradients have none
    of the first numbers; those that differ in the number of their layer alone are taken
    together.
    """
    together: dict[str, list[np.ndarray]] = {}
    for name, x in arrays.items():
        x = np.ravel(np.asarray(x, np.float64))
        together.setdefault(re.sub(r"(?<=[._])\d+(?=\.)", "*", name), []).append(x)
    numbers = {}
    for name, parts in together.items():
        x = np.concatenate(parts)
        numbers[name] = [np.linalg.norm(x), x @ np.cos(np.arange(len(x)))]
        numbers[name] += [] if name.startswith(GRADIENT) else [*x[:FIRST]]
    return numbers


def write(name: str, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes entry -> key -> value, each key on a line of its own."""
    blocks = []
    for entry, values in entries.items():
        lines = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in values.items()]
        blocks.append(f" {json.dumps(entry)}: {{\n" + ",\n".join(lines) + "\n }")
    (FOLDER / f"{name}.json").write_text("{\n" + ",\n".join(blocks) + "\n}\n")


def read(name: str) -> dict[str, dict[str, Any]]:
    return json.loads((FOLDER / f"{name}.json").read_text())
