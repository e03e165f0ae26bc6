"""Names of both discrete VAEs: each tree <-> its state dict."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.convert import discrete_vae, dvae
from beit_jax.convert.rules import read, write
from beit_jax.models.discrete_vae import DiscreteVAE
from beit_jax.models.dvae import DVAE
from beit_jax.weights import flatten
from tests.models import official


def rows_of(model):
    """The table of a model, from its settings."""
    if isinstance(model, DiscreteVAE):
        return discrete_vae.rows(model.patch_size, model.res_blocks)
    size = (model.n_hid, model.n_init, model.blocks_per_group, model.patch_size)
    return dvae.rows(*size)


@pytest.mark.parametrize(
    "model",
    [
        DVAE(vocab=5, n_hid=4, n_init=6),
        DVAE(vocab=5, n_hid=4, n_init=8, patch_size=2, blocks_per_group=1),
        DiscreteVAE(vocab=5, code_dim=3, hidden=4),
        DiscreteVAE(vocab=5, code_dim=3, hidden=4, patch_size=2, res_blocks=2),
    ],
)
def test_every_parameter_survives_the_way_there_and_back(model):
    image = jnp.zeros((1, 8, 8, 3))
    shapes = flatten(jax.eval_shape(model.init, jax.random.key(0), image)["params"])
    rng = np.random.default_rng(0)
    params = {k: rng.normal(size=v.shape).astype("f") for k, v in shapes.items()}
    again = flatten(read(rows_of(model), write(rows_of(model), params)))
    assert again.keys() == params.keys()
    for name, value in params.items():
        np.testing.assert_array_equal(again[name], value, strict=True)


@pytest.mark.parametrize(
    "oracle, table",
    [
        ("dvae", dvae.rows(n_hid=12, n_init=16)),
        ("discrete_vae", discrete_vae.rows(patch_size=8)),
    ],
)
def test_official_weights_survive_the_way_here_and_back(oracle, table):
    state = official.group(official.load(oracle)[0], "param")
    again = write(table, flatten(read(table, state)))
    assert again.keys() == state.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(again[name], value, strict=True)


def test_names_are_those_of_the_files():
    names = {theirs: ours for theirs, ours, _ in dvae.rows()}
    conv = "encoder.blocks.group_4.block_2.res_path.conv_4.w"
    assert names[conv] == "encoder/group_4/block_2/conv_4/kernel"
    assert "encoder.blocks.group_1.block_1.id_path.w" not in names
    assert "decoder.blocks.group_1.block_1.id_path.w" in names
    names = {theirs: ours for theirs, ours, _ in discrete_vae.rows()}
    assert names["decoder.3.net.4.bias"] == "decoder/stage_2_block_1/conv_3/bias"
    assert names["encoder.6.weight"] == "encoder/output/kernel"
