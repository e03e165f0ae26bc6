"""The BEiT family: how ours is written for other tools."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from beit_jax.checkpoints.foreign import (
    beit_names,
    processors,
    rules,
    segment_config,
    segment_names,
    timm_config,
)
from beit_jax.checkpoints.foreign.beit_names import (
    ENCODER,
    INDEX,
    OWN_TABLE,
    SHARED_TABLE,
    TABLE,
    Names,
)
from beit_jax.checkpoints.foreign.rules import Array, Foreign, pair
from beit_jax.checkpoints.names import flatten
from beit_jax.checkpoints.steps import Restored
from beit_jax.models import positions
from beit_jax.models.presets import released_layer_scale

DIALECTS = ("official", "timm", "hf")


def foreign(saved: Restored, dialect: str, target: pathlib.Path) -> Foreign:
    """See checkpoints/foreign/families.py. timm's may be a folder or a file.

    Raises:
      ValueError: something that the dialect cannot express.
    """
    flat = flatten({"params": saved.params, **saved.model_state})
    heads = flat[f"{ENCODER}/blocks/attn/qkv"].shape[-2]
    segments = saved.config["task"]["name"] == "segment"
    pretrains = "params/lm_head/kernel" in flat
    names = Names(dialect == "hf", pretrains=pretrains, segments=segments)
    parts = [part for part in beit_names.parts(heads) if part.ours in flat]
    if segments:
        head = dict(saved.config["task"].get("head", ())).get("name", "upernet")
        found = segment_names.of_ours(head, flat, dialect)
        parts += beit_names.segment_parts(found)
    patch = flat[f"{ENCODER}/patch_embed/proj/kernel"].shape[0]
    size = pair(saved.config["model"]["image_size"])
    grid = (size[0] // patch, size[1] // patch)
    extra, ignorable, notes = {}, (), ()
    texts = {}
    if dialect == "timm":
        parts = [p for p in parts if p.hf and p.group not in ("mask", "lm_head")]
        if target.suffix:
            notes = timm_config.of_file(saved, flat, target)
        else:
            texts[timm_config.FILE], notes = timm_config.written(saved, flat)
        if SHARED_TABLE in flat and target.suffix:
            parts = [part for part in parts if part.group != "shared"]
            ignorable = (SHARED_TABLE,)
            depth = len(flat[f"{ENCODER}/blocks/attn/qkv"])
            copies = [f"blocks.{i}.attn.{TABLE}" for i in range(depth)]
            extra = dict.fromkeys(copies, flat[SHARED_TABLE])
            notes = ("every block has a copy of the shared table", *notes)
    rows = names.rows([part for part in parts if names.of(part)])
    extra |= segment_config.counters([rules.first(row[0]) for row in rows])
    if saved.config["model"].get("abs_pos_embed") == "sincos":
        dim = flat[f"{ENCODER}/cls_token"].shape[-1]
        theirs = "beit.embeddings.position_embeddings" if names.hf else "pos_embed"
        extra |= {theirs: positions.sincos(grid, dim)}
    if dialect == "official":
        extra |= _index_buffers(rows, flat, grid)
    if dialect != "hf":
        return Foreign(rows, ignorable, extra, texts, notes)
    config = _hf_config(saved, flat, grid, patch)
    if f"{ENCODER}/blocks/attn/q_bias" not in flat:
        extra |= _no_biases(flat)
    processor, more = processors.to_processor(saved.card)
    if segments:
        told, notes = segment_config.to_config(saved, flat)
        processor, more = segment_config.to_processor(saved)
        config |= told
    if grid[0] != grid[1] and {SHARED_TABLE, OWN_TABLE} & flat.keys():
        more += ("transformers confuses the sides of tables that are for no square",)
    texts = {"config.json": config, processors.FILE: processor}
    return Foreign(rows, ignorable, extra, texts, (*notes, *more))


def _index_buffers(rows, flat, grid: tuple[int, int]) -> dict[str, Array]:
    """relative_position_index beside each table, which old loaders want."""
    index = positions.relative_position_index(grid).astype(np.int64)
    tables = [row for row in rows if isinstance(row[0], str) and TABLE in row[0]]
    return {
        name.replace("{i}", str(i)).replace(TABLE, INDEX): index
        for name, ours, _ in tables
        for i in range(len(flat[ours]) if "{i}" in name else 1)
    }


def _no_biases(flat: Mapping[str, Array]) -> dict[str, Array]:
    """transformers cannot be without the biases of queries and values."""
    depth, dim = flat[f"{ENCODER}/blocks/attn/qkv"].shape[:2]
    zeros = np.zeros(dim, np.float32)
    where = "beit.encoder.layer.{i}.attention.attention.{part}.bias"
    return {
        where.format(i=i, part=part): zeros
        for i in range(depth)
        for part in ("query", "value")
    }


def _hf_config(
    saved: Restored, flat: Mapping[str, Array], grid: tuple[int, int], patch: int
) -> dict[str, Any]:
    """config.json of transformers."""
    depth, dim, _, heads, _ = flat[f"{ENCODER}/blocks/attn/qkv"].shape
    sizes = [side * patch for side in grid]
    scaled = f"{ENCODER}/blocks/gamma_1" in flat
    config = {
        "architectures": ["BeitModel"],
        "model_type": "beit",
        "hidden_size": dim,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": flat[f"{ENCODER}/blocks/mlp/fc1/kernel"].shape[-1],
        "hidden_act": "gelu",
        "layer_norm_eps": saved.card["norm_eps"],
        "image_size": sizes[0] if sizes[0] == sizes[1] else sizes,
        "patch_size": patch,
        "num_channels": 3,
        "use_mask_token": f"{ENCODER}/mask_token" in flat,
        "use_absolute_position_embeddings": f"{ENCODER}/pos_embed" in flat
        or saved.config["model"].get("abs_pos_embed") == "sincos",
        "use_relative_position_bias": OWN_TABLE in flat,
        "use_shared_relative_position_bias": SHARED_TABLE in flat,
        "layer_scale_init_value": released_layer_scale(depth) if scaled else 0.0,
        "use_mean_pooling": f"{ENCODER}/norm/scale" not in flat,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "drop_path_rate": 0.0,
        "initializer_range": 0.02,
    }
    if "params/lm_head/kernel" in flat:
        vocab = flat["params/lm_head/kernel"].shape[1]
        # Its masked image modelling has a norm of its own; without mean pooling there
        # would be a second one before it.
        config |= {"architectures": ["BeitForMaskedImageModeling"]}
        config |= {"use_mean_pooling": True, "vocab_size": vocab}
    lasts = ("params/head/kernel", "params/decode_head/conv_seg/kernel")
    for path in flat.keys() & {*lasts}:
        classes = flat[path].shape[-1]
        labels = saved.card["class_names"] or [f"LABEL_{i}" for i in range(classes)]
        config |= {
            "architectures": ["BeitForImageClassification"],
            "id2label": {str(i): name for i, name in enumerate(labels)},
            "label2id": {name: i for i, name in enumerate(labels)},
        }
    return config
