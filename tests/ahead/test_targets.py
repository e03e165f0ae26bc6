"""What --on may name, and that compilers which are not here are asked for in words."""

import pytest

from beit_jax.ahead import topology
from beit_jax.ahead.cards import CARDS, described
from beit_jax.ahead.targets import TARGETS, find


@pytest.mark.parametrize(
    "on, shape", [("v5e:4x8", (4, 8)), ("v5p:2x2x1", (2, 2, 1)), ("h100:16", (16,))]
)
def test_a_place_is_a_device_and_how_many(on, shape):
    place = find(on)
    assert place.shape == shape and str(place) == on


@pytest.mark.parametrize(
    "on, message",
    [
        ("v9:2x2", "no 'v9' in beit_jax.ahead.targets; it has a100, .* v6e"),
        ("v5e", "must say how many: v5e:4x8"),
        ("v5p:0x2x1", "must say how many: v5p:2x2x1"),
        ("h100:2x4", "must say how many: h100:8, say"),
        ("h100:12", "beyond one host of 8 .* take h100:16"),
        ("cpu:-1", "must say how many: cpu:8"),
    ],
)
def test_a_place_that_there_is_not_is_refused_in_words(on, message):
    with pytest.raises(ValueError, match=message):
        find(on)


@pytest.mark.parametrize(
    "on, message",
    [
        ("v5e:2x4", r"pip install 'jax\[tpu\]"),
        ("h100:8", r"pip install 'jax\[cuda12\]"),
    ],
)
def test_a_compiler_that_is_not_here_comes_with_its_command(on, message, monkeypatch):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(topology, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=message):
        topology.devices(find(on))


def test_every_card_has_a_description_of_its_published_size():
    cards = {name for name, target in TARGETS.items() if target.platform == "cuda"}
    assert cards == CARDS.keys()
    for name, card in CARDS.items():
        assert f"device_memory_size: {card.memory}" in described(card)
        assert card.memory / 2**30 == pytest.approx(TARGETS[name].memory, abs=0.1)
        assert card.bandwidth / 1e9 == pytest.approx(TARGETS[name].bandwidth, rel=0.01)
