"""Recorded numbers of PyTorch code, official or not, in the layouts of our encoder."""

import json

import numpy as np

from beit_jax.checkpoints.foreign import beit_names, rules
from beit_jax.models.vit import Encoder
from tests.shared import shared_path


def load(oracle: str) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays and the hyper-parameters of a recorded run."""
    folder = shared_path(f"oracles/{oracle}")
    with np.load(folder / "arrays.npz") as arrays:
        return dict(arrays), json.loads((folder / "meta.json").read_text())


def load_hf(oracle: str) -> tuple[dict[str, np.ndarray], dict]:
    """As `load`, for a run of transformers: settings by official names."""
    arrays, meta = load(oracle)
    config = meta["config"]
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
    """A state dict of BEiT (or its gradients) -> the parameters of our tasks.

    What belongs to no parameter of ours is left out.
    """
    names = beit_names.of_state(state)
    parts = [
        part
        for part in beit_names.parts(heads)
        if beit_names.in_layer_0(names.of(part)) in state
    ]
    return rules.read(names.rows(parts), state, allow=("*",))[0]["params"]


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
