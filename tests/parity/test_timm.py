"""Live against timm's BEiT, square and rectangular."""

import pytest

from tests.parity.cases import CASES, FULL_SIZE
from tests.parity.compare import assert_agrees_live

pytest.importorskip("torch")
pytestmark = pytest.mark.parity


@pytest.mark.parametrize("name", [k for k in CASES if CASES[k].peer == "timm"])
def test_ours_agrees(name):
    assert_agrees_live(name, CASES[name])


@pytest.mark.slow
def test_base_agrees():
    assert_agrees_live("beit_base_224", FULL_SIZE["beit_base_224"])
