"""Comparisons with other implementations, each remembered for a table.

    python -m tests.agreement [pytest arguments]

runs the tests that compare and prints what they measured as a markdown table.
"""

import sys

import numpy as np
import pytest

RECORDS: list[tuple[str, str, float, float]] = []  # peer, what, difference, tolerance


def assert_agrees(peer: str, what: str, got, want, atol: float) -> None:
    """Largest absolute difference of two arrays (or numbers), at most `atol`."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"{peer}: {what}: {got.shape} is not {want.shape}"
    _record(peer, what, float(np.max(np.abs(got - want), initial=0.0)), atol)


def assert_relative(peer: str, what: str, got, want, rtol: float) -> None:
    """L2 norm of the difference, at most `rtol` of the L2 norm of `want`."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"{peer}: {what}: {got.shape} is not {want.shape}"
    scale = np.linalg.norm(want)
    _record(peer, what, float(np.linalg.norm(got - want) / scale), rtol)


def _record(peer: str, what: str, difference: float, tolerance: float) -> None:
    RECORDS.append((peer, what, difference, tolerance))
    assert difference <= tolerance, f"{peer}: {what}: {difference:.1e} > {tolerance:g}"


def table() -> str:
    """A row for each peer and case: the largest differences, with tolerances.

    A case is what stands before a colon in what was compared.
    """
    worst: dict[str, dict[str, tuple[float, float, int]]] = {}
    for peer, what, difference, tolerance in RECORDS:
        case, _, what = what.rpartition(": ")
        row = worst.setdefault(f"{peer}, {case}" if case else peer, {})
        was, _, count = row.get(what, (0.0, 0.0, 0))
        row[what] = max(was, difference), tolerance, count + 1
    lines = ["| compared with | largest differences (tolerance) |", "|---|---|"]
    for name, row in sorted(worst.items()):
        cells = [
            f"{what}{f' of {count}' * (count > 1)} {difference:.1e} ({tolerance:g})"
            for what, (difference, tolerance, count) in row.items()
        ]
        lines.append(f"| {name} | {' · '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    from tests import agreement

    code = pytest.main(["-q", "-p", "no:xdist", *sys.argv[1:]])
    print(agreement.table())
    return code


if __name__ == "__main__":
    sys.exit(main())
