"""Networks that share BEiT's names are told, and never taken for one in part."""

import numpy as np
import pytest

from beit_jax.checkpoints.foreign import families, relatives
from beit_jax.checkpoints.foreign.files import Found

QKV = "blocks.0.attn.qkv"
VIT = ["cls_token", "pos_embed", "patch_embed.proj.weight", f"{QKV}.weight"]
BIASED = [*VIT, f"{QKV}.bias"]
CASES = {
    "a plain ViT": BIASED,
    "MAE with its decoder": [*BIASED, "decoder_embed.weight", "mask_token"],
    "distillation token": [*BIASED, "dist_token"],
    "with registers": [*BIASED, "reg_token"],
    "CLIP": ["logit_scale", "visual.conv1.weight"],
    "Swin": ["layers.0.blocks.0.attn.qkv.weight"],
    "VQ-KD": [*VIT, "quantize.embedding.weight", "decode_task_layer.0.weight"],
    "SAM": [*BIASED, "blocks.0.attn.rel_pos_h"],
    "rotary positions": [*VIT, "rope.periods"],
}


@pytest.mark.parametrize("what", CASES)
def test_a_relative_of_beit_is_refused_by_its_name(what, tmp_path):
    state = {name: np.zeros((2, 2), np.float32) for name in CASES[what]}
    with pytest.raises(ValueError, match=what):
        families.restore(Found(tmp_path, state, {}))


def test_a_beit_is_no_relative():
    state = {name: np.zeros((2, 2)) for name in [*VIT, "blocks.0.attn.q_bias"]}
    assert relatives.looks_like(state) == ""
