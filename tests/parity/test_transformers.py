"""Live against Hugging Face's BEiT, and its copy of DALL-E's encoder."""

import jax
import numpy as np
import pytest

from beit_jax.checkpoints.names import nest
from tests.agreement import assert_agrees
from tests.parity import ours
from tests.parity.cases import CASES, FULL_SIZE, make_input
from tests.parity.compare import assert_agrees_live

transformers = pytest.importorskip("transformers")
pytest.importorskip("torch")
pytestmark = pytest.mark.parity


@pytest.mark.parametrize("name", [k for k in CASES if CASES[k].peer == "transformers"])
def test_ours_agrees(name):
    assert_agrees_live(name, CASES[name])


@pytest.mark.parametrize("name", ["mim_shared", "mean_per_block", "cls_plain"])
def test_attention_weights_agree(name):
    from tests.parity import peers

    case = CASES[name]
    image = make_input(case).image
    peer = peers.load(peers.hugging_face(case, attn_implementation="eager"), case)
    theirs = peer(peers.nchw(image), output_attentions=True).attentions
    want = np.stack([block.detach().numpy() for block in theirs])
    every = tuple(range(want.shape[-1]))
    encoder = ours.encoder(case).clone(attends=every)
    params = {"params": nest(ours.parameters(case))["encoder"]}
    with jax.default_matmul_precision("highest"):
        got = jax.jit(encoder.apply)(params, image).attention
    label = peers.label("transformers")
    assert_agrees(label, f"{name}: attention weights", got, want, atol=2e-6)


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
