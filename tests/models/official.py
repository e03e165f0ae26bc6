"""Recorded numbers of PyTorch code, official or not, in the layouts of our encoder."""

import json

import numpy as np

from beit_jax.models.vit import Encoder
from tests.shared import shared_path


def load(oracle: str) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays and the hyper-parameters of a recorded run."""
    folder = shared_path(f"oracles/{oracle}")
    with np.load(folder / "arrays.npz") as arrays:
        return dict(arrays), json.loads((folder / "meta.json").read_text())


def load_hf(oracle: str) -> tuple[dict[str, np.ndarray], dict]:
    """As `load`, for a run of transformers: arrays and settings by official names."""
    arrays, meta = load(oracle)
    config = meta["config"]
    params = from_hf(group(arrays, "param"))
    arrays |= {f"param/{name}": value for name, value in params.items()}
    arrays["in/images"] = arrays["in/pixel_values"]
    return arrays, {ours: config.get(theirs) for theirs, ours in HF_CONFIG.items()}


def group(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays under `prefix/`, by the rest of their names."""
    return {
        k.removeprefix(prefix + "/"): v
        for k, v in arrays.items()
        if k.startswith(prefix + "/")
    }


def encoder(meta: dict, **settings) -> Encoder:
    """Our encoder with the hyper-parameters of the recorded one; `settings` win."""
    size, patch = meta["img_size"], meta["patch_size"]
    height, width = (size, size) if isinstance(size, int) else size
    if meta.get("use_shared_rel_pos_bias"):
        bias = "shared"
    else:
        bias = "per_block" if meta.get("use_rel_pos_bias") else "none"
    recorded = {
        "grid": (height // patch, width // patch),
        "dim": meta["embed_dim"],
        "depth": meta["depth"],
        "heads": meta["num_heads"],
        "patch_size": patch,
        "abs_pos_embed": "learned" if meta.get("use_abs_pos_emb") else "none",
        "rel_pos_bias": bias,
        "layer_scale": meta.get("init_values", 0.1),
        "norm_eps": meta["ln_eps"],
        "taps": tuple(range(meta["depth"])),
    }
    return Encoder(**recorded | settings)


def images(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return arrays["in/images"].transpose(0, 2, 3, 1)


def tree(state: dict[str, np.ndarray], heads: int) -> dict:
    """An official state dict (or its gradients) -> the parameters of our tasks.

    What belongs to no parameter of ours is left out.
    """
    head = {ours: f(state[name]) for name, (ours, f) in HEAD.items() if name in state}
    return {"encoder": encoder_tree(state, heads)} | nest(head)


def encoder_tree(state: dict[str, np.ndarray], heads: int) -> dict:
    """As `tree`, without heads (`lm_head`, `head`, `fc_norm`)."""
    flat = {name: state[name] for name in PLAIN if name in state}
    flat |= {ours: f(state[name]) for name, (ours, f) in TOP.items() if name in state}
    depth = 1 + max(int(k.split(".")[1]) for k in state if k.startswith("blocks."))
    for name, (ours, f) in BLOCK.items():
        if f"blocks.0.{name}" in state:
            stack = [f(state[f"blocks.{i}.{name}"]) for i in range(depth)]
            flat[f"blocks/{ours}"] = _split_heads(ours, np.stack(stack), heads)
    return nest(flat)


def from_hf(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state dict of transformers' BEiT by official names, q, k and v joined."""
    named = {}
    for name, value in state.items():
        for theirs, official in HF.items():
            name = name.replace(theirs, official)
        named[name] = value
    for name in [name for name in named if name.endswith(".q_proj.weight")]:
        parts = [named.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        named[name.replace("attention.q_proj", "attn.qkv")] = np.concatenate(parts)
    return named


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
HEAD = {
    "lm_head.weight": ("lm_head/kernel", np.transpose),
    "lm_head.bias": ("lm_head/bias", _same),
    "fc_norm.weight": ("fc_norm/scale", _same),
    "fc_norm.bias": ("fc_norm/bias", _same),
    "head.weight": ("head/kernel", np.transpose),
    "head.bias": ("head/bias", _same),
}
# What transformers 5 calls the same, piece by piece and in this order. Its pooler's
# norm is the official fc_norm; the last layernorm of its MIM model is `norm`.
HF = {
    "beit.embeddings.patch_embeddings.projection": "patch_embed.proj",
    "beit.embeddings.": "",
    "beit.shared_position_bias.": "rel_pos_bias.",
    "beit.layers.": "blocks.",
    "beit.pooler.layernorm": "fc_norm",
    "lambda_": "gamma_",
    "attention.q_proj.bias": "attn.q_bias",
    "attention.v_proj.bias": "attn.v_bias",
    "attention.o_proj": "attn.proj",
    "relative_position_bias.relative_position": "attn.relative_position",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "layernorm": "norm",
    "classifier": "head",
}
HF_CONFIG = {
    "image_size": "img_size",
    "patch_size": "patch_size",
    "hidden_size": "embed_dim",
    "num_hidden_layers": "depth",
    "num_attention_heads": "num_heads",
    "layer_norm_eps": "ln_eps",
    "use_absolute_position_embeddings": "use_abs_pos_emb",
    "use_relative_position_bias": "use_rel_pos_bias",
    "use_shared_relative_position_bias": "use_shared_rel_pos_bias",
}
