"""Networks that are near to BEiT are refused by their names, none is half taken."""

import re

import numpy as np
import pytest

from beit_jax.checkpoints import read
from beit_jax.checkpoints.foreign import beit, files, plain_vit, relatives
from beit_jax.checkpoints.foreign.rules import Hints
from tests.checkpoints.foreign.test_families import CLASSIFIER, PLAIN, written

ONE = np.zeros(1, np.float32)


def official(tmp_path, saved=PLAIN) -> dict:
    return dict(files.read(written(tmp_path, "official", saved)).state)


def with_key_biases(state: dict) -> dict:
    """As timm and MAE have it: one bias for queries, keys and values."""
    made = {k: x for k, x in state.items() if not k.endswith(("q_bias", "v_bias"))}
    return made | {f"blocks.{i}.attn.qkv.bias": np.zeros(96, "f4") for i in (0, 1)}


def gated(state: dict) -> dict:
    halves = [
        f"blocks.{i}.mlp.fc1.{leaf}" for i in (0, 1) for leaf in ("weight", "bias")
    ]
    return state | {name: np.concatenate([state[name]] * 2) for name in halves}


NEAR = {  # those that have BEiT's names, made of one
    "DINOv3": (lambda s: s | {"reg_token": ONE}, "a ViT with registers"),
    "DeiT": (
        lambda s: with_key_biases(s) | {"dist_token": ONE},
        "a distillation token",
    ),
    "EVA-02": (gated, "gated MLPs"),
    "wrapped": (
        lambda s: {f"module.{k}": x for k, x in (s | {"reg_token": ONE}).items()},
        "a ViT with registers",
    ),
}
FAR = {  # those of other names: some that only they have
    "a Swin": ["layers.0.blocks.0.attn.qkv.weight", "patch_embed.proj.weight"],
    "a CLIP with a ResNet": ["logit_scale", "visual.layer1.0.conv1.weight"],
    "a SigLIP": ["vision_model.head.attention.in_proj_weight"],
    "Data2Vec": ["data2vec_vision.embeddings.cls_token"],
    "SAM's": ["image_encoder.blocks.0.attn.rel_pos_h"],
    "rotary positions (EVA-02)": ["cls_token", "blocks.0.attn.q_proj.weight"],
    "rotary positions": ["blocks.0.attn.qkv.weight", "rope.periods"],
}


@pytest.mark.parametrize("name", NEAR)
def test_what_has_the_names_of_a_beit_is_not_taken_for_one(name, tmp_path):
    change, words = NEAR[name]
    files.write(tmp_path / "x.safetensors", change(official(tmp_path)))
    message = rf"x\.safetensors is of no network known here \(beit, .*{words}"
    with pytest.raises(ValueError, match=message):
        read.read(tmp_path / "x.safetensors", allow=["*"])


@pytest.mark.parametrize("name", FAR)
def test_others_are_called_by_their_name(name, tmp_path):
    files.write(tmp_path / "x.safetensors", dict.fromkeys(FAR[name], ONE))
    with pytest.raises(ValueError, match=f"it looks like .*{re.escape(name)}"):
        read.read(tmp_path / "x.safetensors")


@pytest.mark.parametrize("version_5", [False, True])
def test_a_plain_vit_of_transformers_is_not_taken_for_a_beit(version_5, tmp_path):
    """Without a head and a config it has just BEiT's names, and biases of keys."""
    found = files.read(written(tmp_path, "hf", PLAIN))
    state = {k.removeprefix("beit."): x for k, x in found.state.items()}
    assert beit.recognise(state) == "hf" and plain_vit.recognise(state) == ""
    key = "encoder.layer.{}.attention.attention.key.bias"
    key = "layers.{}.attention.k_proj.bias" if version_5 else key
    state |= {key.format(i): np.zeros(32, np.float32) for i in (0, 1)}
    assert beit.recognise(state) == "" and plain_vit.recognise(state) == "hf"


def test_what_has_no_positions_must_be_called_a_beit_by_the_user(tmp_path):
    state = official(tmp_path)
    del state["pos_embed"]
    files.write(tmp_path / "x.safetensors", state)
    with pytest.raises(ValueError, match="no positions at all. Are they rotary"):
        read.read(tmp_path / "x.safetensors")
    saved, _ = read.read(tmp_path / "x.safetensors", Hints(32, heads=4))
    assert saved.config["model"]["abs_pos_embed"] == "none"


@pytest.mark.parametrize("saved", [CLASSIFIER, PLAIN], ids=["tables", "absolute"])
@pytest.mark.parametrize("to", ["official", "timm", "hf"])
def test_a_beit_looks_like_none_of_them(saved, to, tmp_path):
    assert relatives.looks_like(files.read(written(tmp_path, to, saved)).state) == ""
