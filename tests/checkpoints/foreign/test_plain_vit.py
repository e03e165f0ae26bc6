"""MAE's files, and other plain ViTs, become ours and are written back byte for byte."""

import jax
import numpy as np
import pytest

import beit_jax
from beit_jax.checkpoints import read, write
from beit_jax.checkpoints.foreign import files, plain_vit
from beit_jax.checkpoints.foreign.beit_names import VERSION_5
from beit_jax.checkpoints.foreign.rules import Hints
from beit_jax.models import positions
from beit_jax.run import card
from tests.agreement import assert_agrees
from tests.models import official

DEFAULT = Hints(heads=4)


def mae() -> dict:
    """The state dict of the recorded network, its tables those of real files."""
    arrays, meta = official.load("mae")
    state = official.group(arrays, "param")
    grid = (meta["img_size"] // meta["patch_size"],) * 2
    for name in ("pos_embed", "decoder_pos_embed"):
        state[name] = positions.sincos(grid, state[name].shape[-1])
    return state


def without_key_bias(state: dict) -> dict:
    made = {name: np.array(x) for name, x in state.items()}
    for name, x in made.items():
        if name.endswith("qkv.bias"):
            np.split(x, 3)[1][:] = 0
        elif name.endswith("key.bias"):
            x[:] = 0
    return made


def encoder_of(state: dict) -> dict:
    return {k: x for k, x in state.items() if not k.startswith(("decoder", "mask"))}


def as_ours(tmp_path, state, name="mae_pretrain_vit_base.safetensors", hints=DEFAULT):
    tmp_path.mkdir(exist_ok=True)
    files.write(tmp_path / name, state)
    return read.read(tmp_path / name, hints)


def written_back(tmp_path, saved, to="official"):
    saved = saved._replace(card=card.of_checkpoint(saved))
    path = tmp_path / ("back.safetensors" if to == "official" else "back")
    report = write.write(saved, path, to)
    return files.read(path).state, report, path


def assert_same(got: dict, want: dict):
    assert got.keys() == want.keys()
    for name, x in want.items():
        assert got[name].tobytes() == x.tobytes(), name


@pytest.mark.parametrize("cut", [dict, encoder_of], ids=["full", "encoder"])
def test_files_of_mae_come_back_byte_for_byte(cut, tmp_path):
    state = without_key_bias(cut(mae()))
    saved, report = as_ours(tmp_path, state)
    assert plain_vit.NO_KEY_BIAS in report.notes
    back, report, _ = written_back(tmp_path, saved)
    assert plain_vit.ZERO_KEY_BIAS in report.notes
    assert_same(back, state)


def test_biases_of_keys_are_written_as_zeros_and_all_else_as_it_was(tmp_path):
    state = mae()
    assert any(np.split(state["blocks.0.attn.qkv.bias"], 3)[1])
    back, *_ = written_back(tmp_path, as_ours(tmp_path, state)[0])
    assert_same(back, without_key_bias(state))


def test_what_transformers_has_comes_back_byte_for_byte(tmp_path):
    saved, _ = as_ours(tmp_path, mae())
    state, _, path = written_back(tmp_path, saved, "hf")
    assert "decoder.decoder_layers.0.attention.attention.key.bias" in state
    again, _ = read.read(path)
    assert again.config["task"]["head"] == saved.config["task"]["head"]
    assert again.config["model"] == saved.config["model"]
    jax.tree.map(np.testing.assert_array_equal, again.params, saved.params)
    assert_same(written_back(tmp_path / "b", again, "hf")[0], state)


@pytest.mark.parametrize("nested", [True, False], ids=["5 on disk", "5 in memory"])
def test_other_names_of_transformers_are_read(nested, tmp_path):
    saved, _ = as_ours(tmp_path, mae())
    state, _, path = written_back(tmp_path, saved, "hf")
    layers = ("decoder.decoder_layers.", "decoder.decoder_encoder.layer.")
    pairs = [layers] if nested else VERSION_5
    for old, new in pairs:
        state = {k.replace(old, new): x for k, x in state.items()}
    again, _ = as_ours(tmp_path / "c", state, "x.safetensors", Hints(heads=4))
    jax.tree.map(np.testing.assert_array_equal, again.params, saved.params)


def test_what_a_file_of_mae_is_of_is_told(tmp_path):
    full, _ = as_ours(tmp_path, mae())
    assert full.config["model"]["abs_pos_embed"] == "sincos"
    assert full.config["model"]["pixels"] == "imagenet"
    head = {"name": "decoder", "dim": 24, "depth": 1, "heads": 1, "pos_embed": "sincos"}
    assert full.config["task"]["head"] == head
    assert full.config["task"]["target"]["normalize"]
    raw, _ = as_ours(tmp_path, mae(), "mae_visualize_vit_large.safetensors")
    assert not raw.config["task"]["target"]["normalize"]
    other = encoder_of(mae()) | {
        "pos_embed": official.load("mae")[0]["param/pos_embed"]
    }
    dino, _ = as_ours(tmp_path, other, "dino.safetensors")
    assert dino.config["model"]["abs_pos_embed"] == "learned"
    assert "head" not in dino.config["task"] and "pos_embed" in dino.params["encoder"]


def test_an_encoder_of_mae_makes_of_an_image_what_the_official_one_does(tmp_path):
    arrays, _ = official.load("mae")
    state = official.group(arrays, "param")
    files.write(tmp_path / "x.safetensors", encoder_of(state))
    write.write(
        read.read(tmp_path / "x.safetensors", DEFAULT)[0], tmp_path / "ours", "orbax"
    )
    loaded = beit_jax.load(tmp_path / "ours")
    with jax.default_matmul_precision("highest"):
        features = loaded.module.apply(loaded.variables, official.images(arrays))
    wanted = arrays["out/full_tokens_norm"]
    assert_agrees("oracle mae", "a file's tokens", features.tokens, wanted, atol=1e-5)
