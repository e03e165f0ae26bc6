"""`python -m beit_jax.convert`: files of other projects to runs of ours, and back."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from beit_jax import convert as command
from beit_jax.checkpoints import read
from beit_jax.checkpoints.foreign import rules, vqvae
from beit_jax.checkpoints.names import flatten
from beit_jax.checkpoints.steps import restore_params
from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.models.vqvae import VQVAE
from beit_jax.targets.tokens import Tokens
from tests.shared import shared_path

UNSAID = {"to": None, "allow": [], "image_size": [], "heads": None, "pixels": ""}
SIZE = {"vocab": 16, "code_dim": 4, "width": 8, "res_blocks": 1, "res_hidden": 4}


def convert(source, target, **flags):
    command.main(SimpleNamespace(**UNSAID | flags), str(source), str(target))


@pytest.fixture
def checkpoint(tmp_path):
    """A file of random weights, and the network that they are for."""
    model = VQVAE(network="convolutions", patch_size=4, **SIZE)
    tree = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 8, 8, 3)))
    known = {path for _, path, _ in vqvae.rows(1)}
    leaves = {k: np.asarray(v) for k, v in flatten(tree).items() if k in known}
    np.savez(tmp_path / "vqvae.npz", **rules.write(vqvae.rows(1), leaves)[0])
    return tmp_path / "vqvae.npz", model, tree


def test_a_converted_tokenizer_serves_as_a_target(checkpoint, tmp_path, capsys):
    path, model, tree = checkpoint
    convert(path, tmp_path / "run")
    said = capsys.readouterr().out
    assert "took 22 arrays" in said
    assert "image_size=112 and pixels='centred', as published" in said
    target = Tokens((2, 3), 8, str(tmp_path / "run"), image_size=(8, 12))
    image = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), np.uint8)
    floats = PIXEL_SPACES["centred"].to_float(image)
    wanted = model.apply(tree, floats, method=model.encode)
    ids = target(target.frozen.load(), image)
    np.testing.assert_array_equal(ids, wanted.reshape(2, 6))
    assert restore_params(tmp_path / "run").card["std"] == [1.0, 1.0, 1.0]


def test_nothing_is_written_over(checkpoint, tmp_path):
    path = checkpoint[0]
    convert(path, tmp_path / "run")
    with pytest.raises(ValueError, match="has checkpoints; name an empty directory"):
        convert(path, tmp_path / "run")


def test_the_published_tokenizer_gives_its_recorded_codes(tmp_path):
    folder = shared_path("data/vqvae_tokenizer")
    convert(folder / "vqvae.npz", tmp_path / "run")
    target = Tokens((28, 28), 4, str(tmp_path / "run"))
    recorded = np.load(folder / "reference.npz")
    ids = jax.jit(target)(target.frozen.load(), recorded["images_uint8"])
    np.testing.assert_array_equal(ids, recorded["codes"].reshape(len(ids), -1))


def test_a_run_goes_out_and_comes_back(checkpoint, tmp_path):
    convert(checkpoint[0], tmp_path / "run", image_size=["8"], pixels="half")
    convert(tmp_path / "run", tmp_path / "own.safetensors")
    convert(tmp_path / "own.safetensors", tmp_path / "back.npz", to="official")
    with np.load(checkpoint[0]) as first, np.load(tmp_path / "back.npz") as last:
        assert first.keys() == last.keys()
        for name in first:
            np.testing.assert_array_equal(first[name], last[name])
    card = read.read(tmp_path / "own.safetensors")[0].card
    assert card["image_size"] == [8, 8]
    assert card["mean"] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    "target, flags, message",
    [
        ("weights.pth", {}, r"what is .*weights.pth to be\? --to orbax\|safetensors"),
        ("folder", {"to": "hf"}, "a vqvae is written as official, orbax, safetensors"),
        ("file.txt", {"to": "official"}, "file.txt as official must end in one of"),
        ("run", {"image_size": ["a"]}, "--image_size=a must be"),
    ],
)
def test_what_cannot_be_written_is_said_first(
    checkpoint, tmp_path, target, flags, message
):
    with pytest.raises(ValueError, match=message):
        convert(checkpoint[0], tmp_path / target, **flags)
    assert not (tmp_path / target).exists()
