"""Live against Hugging Face's BEiT, and its copy of DALL-E's encoder."""

import pytest

from tests.parity.cases import CASES, FULL_SIZE
from tests.parity.compare import assert_agrees_live

transformers = pytest.importorskip("transformers")
pytest.importorskip("torch")
pytestmark = pytest.mark.parity


@pytest.mark.parametrize("name", [k for k in CASES if CASES[k].peer == "transformers"])
def test_ours_agrees(name):
    assert_agrees_live(name, CASES[name])


@pytest.mark.slow
def test_base_agrees():
    assert_agrees_live("beit_base_mim", FULL_SIZE["beit_base_mim"])


def test_its_default_epsilon_is_not_the_official_one():
    assert transformers.BeitConfig().layer_norm_eps == 1e-12


def test_without_mean_pooling_it_has_a_second_norm():
    from tests.parity import peers

    case = CASES["mim_shared"]
    ones = peers.hugging_face(case).state_dict().keys()
    twos = peers.hugging_face(case, use_mean_pooling=False).state_dict().keys()
    assert twos - ones == {"beit.layernorm.weight", "beit.layernorm.bias"}
