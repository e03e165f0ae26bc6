"""CLIP's image towers: OpenAI's names, which open_clip has too, and transformers'.

A tower is read as an encoder with its projection, for a teacher or to go on with; what
reads texts is left behind. None is written.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from beit_jax.checkpoints.foreign import processors
from beit_jax.checkpoints.foreign.beit_names import ENCODER, Names
from beit_jax.checkpoints.foreign.files import Found
from beit_jax.checkpoints.foreign.plain_vit import NO_KEY_BIAS
from beit_jax.checkpoints.foreign.preparation import Preparation
from beit_jax.checkpoints.foreign.rules import (
    CONV,
    LINEAR,
    SAME,
    Array,
    Hints,
    Op,
    Row,
    Undecided,
    Understood,
    depth,
)

DIALECTS = ()
EPS = 1e-5
# Patterns of what reads texts, and of numbers beside the weights.
TEXTS = ("logit_*", "text_*", "token_embedding.*", "ln_final.*", "transformer.*")
TEXTS += ("positional_embedding", "*position_ids", "input_resolution")
TEXTS += ("context_length", "vocab_size", "*.self_attn.k_proj.bias")
# open_clip's own weights have an exact GELU, unless they say otherwise.
EXACT = re.compile(r"open_?clip|laion|datacomp|metaclip|dfn", re.IGNORECASE)
QUICK = re.compile(r"quick_?gelu|openai", re.IGNORECASE)
# A plain ViT's names by the official ones and transformers', and what those are here.
BLOCKS = {
    "official": (
        ("blocks.", "visual.transformer.resblocks."),
        (".norm", ".ln_"),
        ("attn.qkv.", "attn.in_proj_"),
        ("attn.proj", "attn.out_proj"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
    ),
    "hf": (
        ("vit.encoder.layer.", "vision_model.encoder.layers."),
        ("attention.attention.query", "self_attn.q_proj"),
        ("attention.attention.key", "self_attn.k_proj"),
        ("attention.attention.value", "self_attn.v_proj"),
        ("attention.output.dense", "self_attn.out_proj"),
        ("layernorm_before", "layer_norm1"),
        ("layernorm_after", "layer_norm2"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
    ),
}
TOKEN = Op(lambda x: x.reshape(1, 1, -1), np.ravel)
TABLE = Op(lambda x: x[None], lambda x: x[0])
OTHERS = {  # ours -> official, transformers', and the layouts of both
    "cls_token": ("visual.class_embedding", "embeddings.class_embedding", TOKEN, TOKEN),
    "pos_embed": (
        "visual.positional_embedding",
        "embeddings.position_embedding.weight",
        TABLE,
        TABLE,
    ),
    "patch_embed/proj/kernel": (
        "visual.conv1.weight",
        "embeddings.patch_embedding.weight",
        CONV,
        CONV,
    ),
    "norm_pre/scale": ("visual.ln_pre.weight", "pre_layrnorm.weight", SAME, SAME),
    "norm_pre/bias": ("visual.ln_pre.bias", "pre_layrnorm.bias", SAME, SAME),
    "norm/scale": ("visual.ln_post.weight", "post_layernorm.weight", SAME, SAME),
    "norm/bias": ("visual.ln_post.bias", "post_layernorm.bias", SAME, SAME),
    "projection": ("visual.proj", "visual_projection.weight", SAME, LINEAR),
}


def recognise(state: Mapping[str, Array]) -> str:
    """ "official" for OpenAI's and open_clip's names, "hf", or "" for no such tower."""
    if "visual.class_embedding" in state and "visual.ln_pre.weight" in state:
        return "official"
    return "hf" if "vision_model.embeddings.class_embedding" in state else ""


def understand(found: Found, dialect: str, hints: Hints) -> Understood:
    """See checkpoints/foreign/families.py.

    Raises:
      ValueError: heads or an image size that the arrays cannot have.
    """
    names = {ours: _name(ours, dialect) for ours in OTHERS}
    there = {ours for ours, name in names.items() if name in found.state}
    config = found.texts.get("config.json", {}) if dialect == "hf" else {}
    config = config.get("vision_config", config)
    notes = [NO_KEY_BIAS]
    model = _model(found, names, config, hints, notes)
    rows = _rows(dialect, model["heads"])
    rows += [
        (names[ours], f"{ENCODER}/{ours}", OTHERS[ours][2 + (dialect == "hf")])
        for ours in OTHERS
        if ours != "projection" or ours in there
    ]
    if "projection" in there:
        shape = found.state[names["projection"]].shape
        model["projection"] = shape[dialect == "official"]
    size = (model["image_size"],) * 2
    pixels = hints.pixels or ("" if processors.FILE in found.texts else "clip")
    seen = processors.of_texts(found.texts, found.path.name, size, pixels)
    dim = model["dim"]

    def complete(tree: dict) -> None:  # its convolution has no bias
        proj = tree["params"]["encoder"]["patch_embed"]["proj"]
        proj["bias"] = np.zeros(dim, np.float32)

    notes = (*notes, *seen.notes)
    sections = _sections(model, seen)
    return Understood(rows, sections, {}, TEXTS, notes, complete)


def _sections(model: dict[str, Any], seen: Preparation) -> dict[str, Any]:
    """An encoder to go on with: what it is to predict, no file tells."""
    grid = model["image_size"] // model["patch_size"]
    hidden = max(1, int(0.4 * grid**2))
    return {
        "epochs": 0.0,
        "task": {"name": "pretrain", "target": {"name": "pixels", "normalize": True}},
        "model": model | {"pixels": seen.pixels},
        "data": {
            "augment": {"interpolation": seen.interpolation},
            "eval_frame": seen.frame,
            "mask": {"name": "blockwise", "max_patches": hidden},
        },
    }


def _name(ours: str, dialect: str) -> str:
    official, hf = OTHERS[ours][:2]
    if dialect == "official":
        return official
    return hf if hf.startswith("visual_") else f"vision_model.{hf}"


def _rows(dialect: str, heads: int) -> list[Row]:
    """Those of the blocks."""
    plain = Names(dialect == "hf", plain=True)
    parts = [part for part in plain.parts(heads) if f"{ENCODER}/blocks/" in part.ours]

    def renamed(name: str) -> str:
        for old, new in BLOCKS[dialect]:
            name = name.replace(old, new)
        return name

    return [
        (
            renamed(name) if isinstance(name, str) else tuple(map(renamed, name)),
            ours,
            op,
        )
        for name, ours, op in plain.rows(parts)
    ]


def _model(
    found: Found,
    names: Mapping[str, str],
    config: Mapping[str, Any],
    hints: Hints,
    notes: list[str],
) -> dict[str, Any]:
    """The section `model`, without its pixels and projection."""
    dim, _, _, patch = found.state[names["patch_embed/proj/kernel"]].shape
    hf = names["norm/bias"].startswith("vision_model.")
    heads = hints.heads or config.get("num_attention_heads") or max(1, dim // 64)
    places = len(found.state[names["pos_embed"]]) - 1
    side = math.isqrt(places)
    if side**2 != places or dim % heads:
        raise Undecided(
            f"{found.path}: {places} positions of {dim} features are of no square "
            f"image and {heads} heads; say --heads"
        )
    layer = "vision_model.encoder.layers" if hf else "visual.transformer.resblocks"
    start = layer + (".0.mlp.fc1.weight" if hf else ".0.mlp.c_fc.weight")
    return {
        "image_size": side * patch,
        "patch_size": patch,
        "dim": dim,
        "depth": depth(found.state, rf"^{re.escape(layer)}\.(\d+)\."),
        "heads": heads,
        "mlp_ratio": len(found.state[start]) / dim,
        "abs_pos_embed": "learned",
        "rel_pos_bias": "none",
        "layer_scale": 0.0,
        "norm_eps": config.get("layer_norm_eps", EPS),
        "activation": _activation(found, config, notes),
        "pre_norm": True,
    }


def _activation(found: Found, config: Mapping[str, Any], notes: list[str]) -> str:
    """What config.json says, or else the name of the file."""
    if "hidden_act" in config:
        return config["hidden_act"]
    name = found.path.name
    exact = EXACT.search(name) and not QUICK.search(name)
    kind = "gelu" if exact else "quick_gelu"
    notes.append(
        f"activation={kind!r} by the name {name!r}: OpenAI's weights have "
        "'quick_gelu', open_clip's own 'gelu', unless they say quickgelu"
    )
    return kind
