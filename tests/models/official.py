"""Recorded numbers of the official PyTorch code, in the layouts of our encoder."""

import json

import numpy as np

from beit_jax.models.vit import Encoder
from tests.shared import shared_path


def load(oracle: str) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays and the hyper-parameters of a recorded run."""
    folder = shared_path(f"oracles/{oracle}")
    with np.load(folder / "arrays.npz") as arrays:
        return dict(arrays), json.loads((folder / "meta.json").read_text())


def group(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays under `prefix/`, by the rest of their names."""
    return {
        k.removeprefix(prefix + "/"): v
        for k, v in arrays.items()
        if k.startswith(prefix + "/")
    }


def encoder(meta: dict, **settings) -> Encoder:
    """Our encoder with the hyper-parameters of the recorded one."""
    side = meta["img_size"] // meta["patch_size"]
    if meta["use_shared_rel_pos_bias"]:
        bias = "shared"
    else:
        bias = "per_block" if meta["use_rel_pos_bias"] else "none"
    return Encoder(
        grid=(side, side),
        dim=meta["embed_dim"],
        depth=meta["depth"],
        heads=meta["num_heads"],
        patch_size=meta["patch_size"],
        abs_pos_embed=meta["use_abs_pos_emb"],
        rel_pos_bias=bias,
        layer_scale=meta["init_values"],
        norm_eps=meta["ln_eps"],
        taps=tuple(range(meta["depth"])),
        **settings,
    )


def images(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return arrays["in/images"].transpose(0, 2, 3, 1)


def encoder_tree(state: dict[str, np.ndarray], heads: int) -> dict:
    """An official state dict (or its gradients) -> the tree of our encoder.

    Heads (`lm_head`, `head`, `fc_norm`) are left out.
    """
    flat = {name: state[name] for name in PLAIN if name in state}
    flat |= {ours: f(state[name]) for name, (ours, f) in TOP.items() if name in state}
    depth = 1 + max(int(k.split(".")[1]) for k in state if k.startswith("blocks."))
    for name, (ours, f) in BLOCK.items():
        if f"blocks.0.{name}" in state:
            stack = [f(state[f"blocks.{i}.{name}"]) for i in range(depth)]
            flat[f"blocks/{ours}"] = _split_heads(ours, np.stack(stack), heads)
    return nest(flat)


def nest(flat: dict[str, np.ndarray]) -> dict:
    tree = {}
    for path, value in flat.items():
        *folders, leaf = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = value
    return tree


def _split_heads(name: str, x: np.ndarray, heads: int) -> np.ndarray:
    depth, dim = x.shape[0], x.shape[-1]
    if name == "attn/qkv":
        return x.reshape(depth, -1, 3, heads, dim // 3 // heads)
    if name in ("attn/q_bias", "attn/v_bias"):
        return x.reshape(depth, heads, -1)
    if name == "attn/proj/kernel":
        return x.reshape(depth, heads, -1, dim)
    return x


def _same(x: np.ndarray) -> np.ndarray:
    return x


PLAIN = ("cls_token", "mask_token", "pos_embed")
TOP = {
    "patch_embed.proj.weight": (
        "patch_embed/proj/kernel",
        lambda x: x.transpose(2, 3, 1, 0),
    ),
    "patch_embed.proj.bias": ("patch_embed/proj/bias", _same),
    "rel_pos_bias.relative_position_bias_table": ("rel_pos_bias/table", _same),
    "norm.weight": ("norm/scale", _same),
    "norm.bias": ("norm/bias", _same),
}
BLOCK = {
    "gamma_1": ("gamma_1", _same),
    "gamma_2": ("gamma_2", _same),
    "norm1.weight": ("norm1/scale", _same),
    "norm1.bias": ("norm1/bias", _same),
    "attn.qkv.weight": ("attn/qkv", np.transpose),
    "attn.q_bias": ("attn/q_bias", _same),
    "attn.v_bias": ("attn/v_bias", _same),
    "attn.proj.weight": ("attn/proj/kernel", np.transpose),
    "attn.proj.bias": ("attn/proj/bias", _same),
    "attn.relative_position_bias_table": ("attn/rel_pos_bias/table", _same),
    "norm2.weight": ("norm2/scale", _same),
    "norm2.bias": ("norm2/bias", _same),
    "mlp.fc1.weight": ("mlp/fc1/kernel", np.transpose),
    "mlp.fc1.bias": ("mlp/fc1/bias", _same),
    "mlp.fc2.weight": ("mlp/fc2/kernel", np.transpose),
    "mlp.fc2.bias": ("mlp/fc2/bias", _same),
}
