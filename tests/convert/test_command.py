"""`python -m beit_jax.convert`: a file of another project becomes a run of ours."""

import jax
import numpy as np
import pytest

from beit_jax.convert import __main__ as command
from beit_jax.convert import rules, vqvae
from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.models.vqvae import VQVAE
from beit_jax.targets.tokens import Tokens
from beit_jax.weights import flatten, restore_params
from tests.shared import shared_path

SIZE = {"vocab": 16, "code_dim": 4, "width": 8, "res_blocks": 1, "res_hidden": 4}


@pytest.fixture
def checkpoint(tmp_path):
    """A file of random weights, and the network that they are for."""
    model = VQVAE(network="convolutions", patch_size=4, **SIZE)
    tree = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 8, 8, 3)))
    known = {path for _, path, _ in vqvae.rows(1)}
    leaves = {k: np.asarray(v) for k, v in flatten(tree).items() if k in known}
    np.savez(tmp_path / "vqvae.npz", **rules.write(vqvae.rows(1), leaves))
    return tmp_path / "vqvae.npz", model, tree


def test_a_converted_tokenizer_serves_as_a_target(checkpoint, tmp_path, capsys):
    path, model, tree = checkpoint
    command.main(None, str(path), str(tmp_path / "run"))
    assert f"{tmp_path}/run/checkpoints/0: " in capsys.readouterr().out
    target = Tokens((2, 3), 8, str(tmp_path / "run"), image_size=(8, 12))
    image = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), np.uint8)
    floats = PIXEL_SPACES["centred"].to_float(image)
    wanted = model.apply(tree, floats, method=model.encode)
    ids = target(target.load_frozen(), image)
    np.testing.assert_array_equal(ids, wanted.reshape(2, 6))
    assert restore_params(tmp_path / "run").card["std"] == [1.0, 1.0, 1.0]


def test_nothing_is_written_over(checkpoint, tmp_path):
    path = str(checkpoint[0])
    command.main(None, path, str(tmp_path / "run"))
    with pytest.raises(ValueError, match="has checkpoints; name an empty directory"):
        command.main(None, path, str(tmp_path / "run"))


def test_the_published_tokenizer_gives_its_recorded_codes(tmp_path):
    folder = shared_path("data/vqvae_tokenizer")
    command.main(None, str(folder / "vqvae.npz"), str(tmp_path / "run"))
    target = Tokens((28, 28), 4, str(tmp_path / "run"))
    recorded = np.load(folder / "reference.npz")
    ids = jax.jit(target)(target.load_frozen(), recorded["images_uint8"])
    np.testing.assert_array_equal(ids, recorded["codes"].reshape(len(ids), -1))
