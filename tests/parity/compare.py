"""Ours against a torch peer that runs now, and against its recorded numbers."""

from typing import Any

import pytest

from tests.agreement import assert_agrees, assert_relative
from tests.parity import golden, ours
from tests.parity.cases import Case

ATOL = {"loss": 2e-6, "tokens": 0}
ATOL_REST = 1e-5  # logits and stats, of the size of 1
RTOL = 1e-5  # of a gradient's norm, each tensor's


def assert_agrees_live(name: str, case: Case, rtol: float = RTOL) -> None:
    """All outputs, and the gradient of every parameter, each to `rtol` of its norm."""
    pytest.importorskip(case.peer)
    from tests.parity import peers

    label = peers.label(case.peer)
    got, want = ours.run(case), peers.run(case)
    assert got.keys() == want.keys()
    for what in want:
        if what.startswith(ours.GRADIENT):
            assert_relative(label, f"{name}: gradients", got[what], want[what], rtol)
        else:
            atol = ATOL.get(what, ATOL_REST)
            assert_agrees(label, f"{name}: {what}", got[what], want[what], atol)


def assert_agrees_with_record(name: str, case: Case, record: dict[str, Any]) -> None:
    """What `record.py` kept of all outputs and gradients."""
    label = record["recorded from"] + ", recorded"
    got = golden.digest(ours.run(case, recorded=True))
    assert got.keys() | {"recorded from", "case"} == record.keys()
    for what, numbers in got.items():
        sums, first = record[what][:2], record[what][2:]
        assert_relative(label, f"{name}: norms and sums", numbers[:2], sums, RTOL)
        if first:
            atol = ATOL.get(what, ATOL_REST)
            assert_agrees(label, f"{name}: {what}", numbers[2:], first, atol)
