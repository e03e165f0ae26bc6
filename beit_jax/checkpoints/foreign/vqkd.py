"""VQ-KD, the tokenizer of BEiT v2, as the official code (unilm, beit2) saves it."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from beit_jax.checkpoints.foreign import beit_names, rules, tokenizers
from beit_jax.checkpoints.foreign.files import Found
from beit_jax.checkpoints.foreign.rules import Foreign, Hints, Row, Understood
from beit_jax.checkpoints.names import flatten
from beit_jax.checkpoints.steps import Restored
from beit_jax.models.vqkd import VQKD

DIALECTS = ("official",)
CODES = "quantize.embedding.weight"
# Theirs -> ours: two ViTs, and two linear layers after each.
VITS = {"encoder": "encoder", "decoder": "student"}
LAYERS = {"encode_task_layer": "to_code", "decode_task_layer": "to_teacher"}
GROUPS = ("", "absolute", "qkv_bias")  # of BEiT's names, those that such a ViT has
QUANTIZER = "codebook/quantizer"
# What is no part of the network: a teacher that was saved with it, and its buffers.
IGNORABLE = ("teacher*", "scaling*", "loss*")
IGNORABLE += tuple(
    f"quantize.embedding.{name}" for name in ("embed_avg", "cluster_size", "initted")
)


def rows(heads: Mapping[str, int]) -> list[Row]:
    """The table of a `models.vqkd.VQKD` without a decoder of pixels.

    Args:
      heads: those of each of VITS.
    """
    table: list[Row] = [
        (CODES, f"{QUANTIZER}/embedding", rules.SAME),
        ("quantize.cluster_size", f"{QUANTIZER}/cluster_size", rules.SAME),
    ]
    for theirs, ours in VITS.items():
        path = f"params/{ours}"
        table += [
            (
                f"{theirs}.{part.official}",
                part.ours.replace(beit_names.ENCODER, path),
                part.op,
            )
            for part in beit_names.parts(heads[theirs])
            if part.group in GROUPS
        ]
        table.append((f"{theirs}.fc_norm.weight", f"{path}/norm/scale", rules.SAME))
        table.append((f"{theirs}.fc_norm.bias", f"{path}/norm/bias", rules.SAME))
    for theirs, ours in LAYERS.items():
        for number, layer in ((0, "fc1"), (2, "fc2")):
            name, path = f"{theirs}.{number}", f"params/{ours}/{layer}"
            table.append((f"{name}.weight", f"{path}/kernel", rules.LINEAR))
            table.append((f"{name}.bias", f"{path}/bias", rules.SAME))
    return table


def recognise(state: Mapping[str, rules.Array]) -> str:
    """ "official", or "" for none."""
    there = CODES in state and "decode_task_layer.0.weight" in state
    return "official" if there else ""


def understand(found: Found, dialect: str, hints: Hints) -> Understood:
    """See checkpoints/foreign/families.py.

    Raises:
      ValueError: arrays of other shapes than such a network has.
    """
    vocab, code_dim = tokenizers.shape(found, CODES, 2)
    dim, _, patch_size, _ = tokenizers.shape(
        found, "encoder.patch_embed.proj.weight", 4
    )
    wide = tokenizers.shape(found, "decoder.patch_embed.proj.weight", 4)[0]
    positions = tokenizers.shape(found, "encoder.pos_embed", 3)[1]
    side = round((positions - 1) ** 0.5) * patch_size
    heads = hints.heads or _heads(dim)
    model = {
        "name": "vqkd",
        "vocab": vocab,
        "code_dim": code_dim,
        "teacher_dim": tokenizers.shape(found, "decode_task_layer.2.weight", 2)[0],
        "patch_size": patch_size,
        "dim": dim,
        "depth": _blocks(found, "encoder"),
        "heads": heads,
        "teacher_blocks": _blocks(found, "decoder"),
        "decoder_dim": wide,
        "decoder_heads": hints.heads or _heads(wide),
        "pixel_blocks": 0,
        "image_size": side,
        "pixels": "half",
    }
    return tokenizers.understood(
        rows({"encoder": heads, "decoder": model["decoder_heads"]}),
        model,
        hints,
        ignorable=IGNORABLE,
        complete=_complete,
        notes=(f"{heads} heads, of 64 features each as published: --heads",),
    )


def _heads(dim: int) -> int:
    """Of 64 features each, as the published ones have them."""
    return max(1, dim // 64)


def _blocks(found: Found, vit: str) -> int:
    return rules.depth(found.state, rf"^{vit}\.blocks\.(\d+)\.")


def _complete(tree: rules.Tree) -> None:
    """The codes have begun: a training goes on with them."""
    tree["codebook"]["quantizer"]["initted"] = np.array(True)


def foreign(saved: Restored, dialect: str, target: pathlib.Path) -> Foreign:
    """See checkpoints/foreign/families.py.

    The codebook's second average and count, which the official code saves and never
    uses again, are copies of the first.
    """
    heads = tokenizers.settings(saved, VQKD, ("heads", "decoder_heads"))
    flat = flatten({"params": saved.params, **saved.model_state})
    notes = tokenizers.pixel_notes(saved, "half")
    if any(name.startswith("params/decoder/") for name in flat):
        notes += ("the decoder of pixels, which theirs lacks, is left behind",)
    return Foreign(
        rows({"encoder": heads["heads"], "decoder": heads["decoder_heads"]}),
        ignorable=(
            f"{QUANTIZER}/initted",
            f"{QUANTIZER}/start_*",
            "params/decoder/*",
            "params/to_pixels/*",
        ),
        extra=_unused(flat),
        notes=notes,
    )


def _unused(flat: Mapping[str, Any]) -> dict[str, rules.Array]:
    return {
        "quantize.embedding.embed_avg": flat[f"{QUANTIZER}/embedding"],
        "quantize.embedding.cluster_size": flat[f"{QUANTIZER}/cluster_size"],
        "quantize.embedding.initted": np.ones(1, np.float32),
    }
