"""Packed names are those that were given."""

import pytest

from beit_jax.data.sources import names
from beit_jax.data.sources.names import Names

ODD = ["", "a", "b/ä.png", "b/\udcff.png", "c\n,d", "…" * 50]


@pytest.mark.parametrize("together", [1, 4, 4096])
def test_names_come_back_in_their_order(together, monkeypatch):
    monkeypatch.setattr(names, "_TOGETHER", together)
    packed = Names(ODD)
    assert len(packed) == len(ODD) and list(packed) == ODD
    assert [packed[i] for i in range(len(ODD))] == ODD
    assert packed[-1] == ODD[-1] and list(Names([])) == []
    for index in (len(ODD), -len(ODD) - 1):
        with pytest.raises(IndexError):
            packed[index]


def test_sorted_names_are_found():
    packed = Names(sorted(ODD))
    assert [packed.find(name) for name in sorted(ODD)] == list(range(len(ODD)))
    assert packed.find("b") == packed.find("z") == Names([]).find("") == -1
