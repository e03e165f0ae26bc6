"""Plain ViTs: MAE with or without its decoder, DINO's, timm's vit_*.

A bare encoder with MAE's fixed positions is one of MAE's; one with others may be of
anyone, and is taken as an encoder to go on with.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from beit_jax.checkpoints.foreign import (
    beit,
    beit_names,
    processors,
    relatives,
    timm_config,
)
from beit_jax.checkpoints.foreign.beit_names import ENCODER, Names
from beit_jax.checkpoints.foreign.files import Found
from beit_jax.checkpoints.foreign.rules import Array, Foreign, Hints, Understood, pair
from beit_jax.checkpoints.foreign.vit_names import DECODER_POSITIONS, POSITIONS
from beit_jax.checkpoints.names import flatten
from beit_jax.checkpoints.steps import Restored
from beit_jax.models import positions

DIALECTS = ("official", "hf")
# Of transformers, a pooler that pre-training does not train.
IGNORABLE = (*beit_names.IGNORABLE, "*pooler.dense.*")
NO_KEY_BIAS = "biases of keys, which softmax cancels, are left behind"
ZERO_KEY_BIAS = "biases of keys, which softmax cancels, are written as 0"


def recognise(state: Mapping[str, Array]) -> str:
    """ "official" for the names that timm has too, "hf", or "" for no plain ViT."""
    names = beit_names.of_state(state)
    if names is None or not names.plain or relatives.looks_like(state):
        return ""
    return "hf" if names.hf else "official"


def understand(found: Found, dialect: str, hints: Hints) -> Understood:
    """See checkpoints/foreign/families.py; errors are those of beit.understand."""
    told = processors.FILE in found.texts or timm_config.of_texts(found.texts)
    if not told and not hints.pixels:  # as all of them have it
        hints = hints._replace(pixels="imagenet")
    made = beit.understand(found, dialect, hints)
    config = found.texts.get("config.json", {}) if dialect == "hf" else {}
    stored = {ours: theirs for theirs, ours, _ in made.rows}
    model, sections = made.sections["model"], dict(made.sections)
    grid = [side // model["patch_size"] for side in pair(model["image_size"])]
    fixed = [
        path
        for path in (POSITIONS, DECODER_POSITIONS)
        if path in stored and _are_sincos(found.state[stored[path]], grid)
    ]
    if POSITIONS in fixed:
        sections["model"] = model | {"abs_pos_embed": "sincos"}
    if sections["task"]["name"] == "pretrain":
        task = _task(found, stored, fixed, config)
        hidden = max(1, round(0.75 * grid[0] * grid[1]))
        mask = {"name": "random", "max_patches": hidden}
        sections |= {"task": task, "data": sections["data"] | {"mask": mask}}
    rows = [row for row in made.rows if row[1] not in fixed]
    ignorable = (*IGNORABLE, *(stored[path] for path in fixed))
    notes = (NO_KEY_BIAS, *made.notes)
    return made._replace(rows=rows, sections=sections, ignorable=ignorable, notes=notes)


def _are_sincos(table: Array, grid: list[int]) -> bool:
    dim = table.shape[-1]
    return dim % 4 == 0 and np.array_equal(table, positions.sincos(grid, dim))


def _task(
    found: Found,
    stored: Mapping[str, Any],
    fixed: list[str],
    config: Mapping[str, Any],
) -> dict[str, Any]:
    """The section `task` of what has no classes."""
    raw = "visualize" in found.path.name  # how the official files call it
    normalize = config.get("norm_pix_loss", not raw)
    target = {"name": "pixels", "normalize": normalize, "pixels": "imagenet"}
    task = {"name": "pretrain", "target": target}
    if "params/mask_token" not in stored:
        return task | ({"head": {"name": "decoder"}} if POSITIONS in fixed else {})
    width = found.state[stored["params/mask_token"]].shape[-1]
    blocks = beit_names.in_layer_0(stored["params/decoder_blocks/norm1/scale"])
    start, end = blocks.split("0", 1)
    depth = sum(n.startswith(start) and n.endswith(end) for n in found.state)
    head = {
        "name": "decoder",
        "dim": width,
        "depth": depth,
        "heads": config.get("decoder_num_attention_heads") or max(1, width // 32),
        "pos_embed": "sincos" if DECODER_POSITIONS in fixed else "learned",
    }
    return task | {"head": head}


def foreign(saved: Restored, dialect: str, target: pathlib.Path) -> Foreign:
    """See checkpoints/foreign/families.py: MAE's names."""
    flat = flatten({"params": saved.params})
    names = Names(dialect == "hf", plain=True)
    heads = flat[f"{ENCODER}/blocks/attn/qkv"].shape[-2]
    decoder = flat.get("params/decoder_blocks/attn/qkv")
    every = names.parts(heads, 1 if decoder is None else decoder.shape[-2])
    named = {part.ours: names.of(part) for part in every}
    model = saved.config["model"]
    patch = flat[f"{ENCODER}/patch_embed/proj/kernel"].shape[0]
    grid = [side // patch for side in pair(model["image_size"])]
    extra = {}
    widths = {POSITIONS: f"{ENCODER}/cls_token", DECODER_POSITIONS: "params/mask_token"}
    for path, token in widths.items():
        if token in flat and path not in flat:
            extra[named[path]] = positions.sincos(grid, flat[token].shape[-1])
    rows = names.rows([part for part in every if part.ours in flat])
    if dialect == "official":
        return Foreign(rows, extra=extra, notes=(ZERO_KEY_BIAS,))
    extra |= _zero_key_biases(named, flat)
    processor, more = processors.to_processor(saved.card)
    texts = {"config.json": _hf_config(saved, flat), processors.FILE: processor}
    return Foreign(rows, (), extra, texts, (ZERO_KEY_BIAS, *more))


def _zero_key_biases(named, flat: Mapping[str, Array]) -> dict[str, Array]:
    made = {}
    for path, leaf in flat.items():
        if path.endswith("blocks/attn/q_bias"):
            name = named[path].replace(".query.", ".key.")
            zeros = np.zeros(leaf[0].size, np.float32)
            made |= {name.replace("{i}", str(i)): zeros for i in range(len(leaf))}
    return made


def _hf_config(saved: Restored, flat: Mapping[str, Array]) -> dict[str, Any]:
    """config.json of transformers' ViTMAE."""
    depth, dim, _, heads, _ = flat[f"{ENCODER}/blocks/attn/qkv"].shape
    patch = flat[f"{ENCODER}/patch_embed/proj/kernel"].shape[0]
    config = {
        "architectures": ["ViTMAEModel"],
        "model_type": "vit_mae",
        "hidden_size": dim,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": flat[f"{ENCODER}/blocks/mlp/fc1/kernel"].shape[-1],
        "hidden_act": "gelu",
        "layer_norm_eps": saved.card["norm_eps"],
        "image_size": saved.config["model"]["image_size"],
        "patch_size": patch,
        "num_channels": 3,
        "qkv_bias": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "norm_pix_loss": saved.config["task"]["target"].get("normalize", False),
    }
    if "params/mask_token" not in flat:
        return config
    depth, dim, _, heads, _ = flat["params/decoder_blocks/attn/qkv"].shape
    return config | {
        "architectures": ["ViTMAEForPreTraining"],
        "decoder_hidden_size": dim,
        "decoder_num_hidden_layers": depth,
        "decoder_num_attention_heads": heads,
        "decoder_intermediate_size": 4 * dim,
    }
