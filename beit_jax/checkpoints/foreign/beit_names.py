"""BEiT's names: in the official code and timm, and in Hugging Face transformers.

The official names are those of beit/modeling_pretrain.py and modeling_finetune.py of
microsoft/unilm, which timm has kept. transformers writes the names of its version 4 to
this day; in memory, version 5 has others, which are read too.
"""

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np

from beit_jax.checkpoints.foreign import rules, segment_names, vit_names
from beit_jax.checkpoints.foreign.rules import CONV, Op, Row
from beit_jax.checkpoints.foreign.vit_names import Part, linear, norm

TABLE = "relative_position_bias_table"
INDEX = "relative_position_index"
SECOND = "cls_pt_"  # how names of BEiT v2's second prediction begin, in pre-training
# Buffers that follow from the grid, biases of keys, which softmax cancels, and what no
# network of ours has.
IGNORABLE = (f"*{INDEX}", "*.k_bias", "*.key.bias", "*.k_proj.bias", f"{SECOND}*")
IGNORABLE += (f"*.{segment_names.COUNTER}",)
ENCODER = "params/encoder"
SEGMENT = "its head of segmentation"  # the group of its arrays
SHARED_TABLE = f"{ENCODER}/rel_pos_bias/table"
OWN_TABLE = f"{ENCODER}/blocks/attn/rel_pos_bias/table"
# What version 5 of transformers calls parts of version 4's names, in this order.
VERSION_5 = (
    ("encoder.relative_position_bias.", "shared_position_bias."),
    ("attention.attention.relative_position_bias.", "relative_position_bias."),
    ("encoder.layer.", "layers."),
    ("attention.attention.query.", "attention.q_proj."),
    ("attention.attention.key.", "attention.k_proj."),
    ("attention.attention.value.", "attention.v_proj."),
    ("attention.output.dense.", "attention.o_proj."),
    ("intermediate.dense.", "mlp.fc1."),
    ("output.dense.", "mlp.fc2."),
)


def parts(heads: int) -> list[Part]:
    """All parameters of a BEiT with so many attention heads."""
    first = _first(heads)
    again = [_second(part) for part in first if "/blocks/" in part.ours]
    return [
        *first,
        *again,
        *norm(f"{SECOND}norm", f"params/{SECOND}norm", f"{SECOND}norm", ""),
        *linear(f"{SECOND}norm", f"params/{SECOND}lm_head", f"{SECOND}lm_head", ""),
    ]


def _second(part: Part) -> Part:
    """What a parameter of a block is in the blocks of BEiT v2's second prediction."""
    return part._replace(
        group=SECOND + part.group,
        ours=part.ours.replace(f"{ENCODER}/blocks", f"params/{SECOND}layers"),
        official=part.official.replace("blocks", f"{SECOND}layers"),
        hf="",
        hf_op=None,
    )


def _first(heads: int) -> list[Part]:
    encoder, blocks = ENCODER, f"{ENCODER}/blocks"
    theirs, layer = "beit.embeddings", "beit.encoder.layer.{i}"
    attention = f"{layer}.attention.attention"
    qkv = tuple(f"{attention}.{name}.weight" for name in ("query", "key", "value"))
    split = Op(
        lambda x: x.reshape(heads, -1),  # (D,) -> (A, K)
        np.ravel,
    )
    return [
        Part("", f"{encoder}/cls_token", "cls_token", f"{theirs}.cls_token"),
        Part("mask", f"{encoder}/mask_token", "mask_token", f"{theirs}.mask_token"),
        Part(
            "absolute",
            f"{encoder}/pos_embed",
            "pos_embed",
            f"{theirs}.position_embeddings",
        ),
        *linear(
            "",
            f"{encoder}/patch_embed/proj",
            "patch_embed.proj",
            f"{theirs}.patch_embeddings.projection",
            CONV,
        ),
        Part(
            "shared",
            SHARED_TABLE,
            f"rel_pos_bias.{TABLE}",
            f"beit.encoder.relative_position_bias.{TABLE}",
        ),
        Part(
            "per_block",
            OWN_TABLE,
            f"blocks.{{i}}.attn.{TABLE}",
            f"{attention}.relative_position_bias.{TABLE}",
        ),
        Part("scale", f"{blocks}/gamma_1", "blocks.{i}.gamma_1", f"{layer}.lambda_1"),
        Part("scale", f"{blocks}/gamma_2", "blocks.{i}.gamma_2", f"{layer}.lambda_2"),
        *norm("", f"{blocks}/norm1", "blocks.{i}.norm1", f"{layer}.layernorm_before"),
        *norm("", f"{blocks}/norm2", "blocks.{i}.norm2", f"{layer}.layernorm_after"),
        Part(
            "",
            f"{blocks}/attn/qkv",
            "blocks.{i}.attn.qkv.weight",
            qkv,
            _joint_qkv(heads),
            _split_qkv(heads),
        ),
        Part(
            "qkv_bias",
            f"{blocks}/attn/q_bias",
            "blocks.{i}.attn.q_bias",
            f"{attention}.query.bias",
            split,
        ),
        Part(
            "qkv_bias",
            f"{blocks}/attn/v_bias",
            "blocks.{i}.attn.v_bias",
            f"{attention}.value.bias",
            split,
        ),
        *linear(
            "",
            f"{blocks}/attn/proj",
            "blocks.{i}.attn.proj",
            f"{layer}.attention.output.dense",
            _from_heads(heads),
        ),
        *linear(
            "", f"{blocks}/mlp/fc1", "blocks.{i}.mlp.fc1", f"{layer}.intermediate.dense"
        ),
        *linear("", f"{blocks}/mlp/fc2", "blocks.{i}.mlp.fc2", f"{layer}.output.dense"),
        *norm("norm", f"{encoder}/norm", "norm", "beit.layernorm"),
        *norm("fc_norm", "params/fc_norm", "fc_norm", "beit.pooler.layernorm"),
        *linear("lm_head", "params/lm_head", "lm_head", "lm_head"),
        *linear("head", "params/head", "head", "classifier"),
    ]


def _joint_qkv(heads: int) -> Op:
    """(3 A K, D) <-> (D, 3, A, K)"""
    return Op(
        lambda x: x.T.reshape(x.shape[1], 3, heads, -1),
        lambda x: x.reshape(len(x), -1).T,
    )


def _split_qkv(heads: int) -> Op:
    """Three of (A K, D) <-> (D, 3, A, K)"""
    joint = _joint_qkv(heads)
    return Op(
        lambda *qkv: joint.read(np.concatenate(qkv)),
        lambda x: tuple(np.split(joint.write(x), 3)),
    )


def _from_heads(heads: int) -> Op:
    """(D, A K) <-> (A, K, D)"""
    return Op(
        lambda x: x.T.reshape(heads, -1, len(x)),
        lambda x: x.reshape(-1, x.shape[-1]).T,
    )


class Names(NamedTuple):
    """How a source or a target writes the names."""

    hf: bool
    version_5: bool = False
    prefix: bool = True  # "beit."; BeitModel alone has none
    pretrains: bool = False  # BeitForMaskedImageModeling has a norm of its own
    segments: bool = False  # mmseg's networks have the encoder as a part
    plain: bool = False  # of a plain ViT, see vit_names.py
    nested: bool = False  # of its decoder, as version 5 of transformers writes MAE's

    def parts(self, heads: int, decoder_heads: int = 1) -> list[Part]:
        if self.plain:
            return vit_names.parts(_first(heads), _first(decoder_heads))
        return parts(heads)

    def of(self, part: Part) -> str | tuple[str, ...]:
        if not self.hf:
            inside = self.segments and part.ours.startswith(ENCODER)
            return segment_names.BACKBONE * inside + part.official
        if isinstance(part.hf, str):
            return self._hf(part.hf)
        return tuple(map(self._hf, part.hf))

    def _hf(self, name: str) -> str:
        if self.pretrains:
            name = re.sub(r"^beit\.layernorm\.", "layernorm.", name)
        for old, new in VERSION_5 if self.version_5 else ():
            name = name.replace(old, new)
        if self.nested:
            name = name.replace(*vit_names.NESTED)
        return name if self.prefix else re.sub(r"^(beit|vit)\.", "", name)

    @property
    def style(self) -> str:
        """How `segment_names.Layer` calls these names."""
        return ("version_5" if self.version_5 else "hf") if self.hf else "official"

    def rows(self, chosen: Iterable[Part]) -> list[Row]:
        return [(self.of(p), p.ours, (self.hf and p.hf_op) or p.op) for p in chosen]


def in_layer_0(theirs: str | tuple[str, ...]) -> str:
    return rules.first(theirs).replace("{i}", "0")


def of_state(state: Collection[str]) -> Names | None:
    """How a state dict writes its names; None if it is no BEiT's nor a plain ViT's."""
    for prefix in ("", segment_names.BACKBONE):
        if {f"{prefix}cls_token", f"{prefix}blocks.0.attn.qkv.weight"} <= {*state}:
            plain = "blocks.0.attn.qkv.bias" in state
            return Names(hf=False, segments=bool(prefix), plain=plain)
    patches = "embeddings.patch_embeddings.projection.weight"
    for prefix in ("beit.", "vit.", ""):
        if prefix + patches in state:
            version_5 = any(name.startswith(f"{prefix}layers.0.") for name in state)
            plain = prefix == "vit." or (not prefix and vit_names.has_key_bias(state))
            nested = any(name.startswith(vit_names.NESTED[1]) for name in state)
            pretrains = "lm_head.weight" in state
            kind = {"plain": plain, "nested": nested}
            return Names(True, version_5, bool(prefix), pretrains, **kind)
    return None


def present(names: Names, state: Collection[str]) -> dict[str, Part]:
    """Our path -> the part, of all that a state dict should have.

    A part of a group is wanted when any other of the group is there. The second
    prediction is, in a file of pre-training alone.
    """
    every = names.parts(1)
    there = {part.group for part in every if in_layer_0(names.of(part)) in state}
    if "lm_head" not in there:
        there = {group for group in there if not group.startswith(SECOND)}
    segments = segment_parts(segment_names.of_state(state, names.style))
    if segments:  # its encoder ends with the taps
        there -= {"norm"}
    have = [part for part in every if not part.group or part.group in there]
    return {part.ours: part for part in (*have, *segments)}


def segment_parts(found: Iterable[segment_names.Found]) -> list[Part]:
    """The arrays of a head of segmentation, by the names that they have there."""
    return [Part(SEGMENT, x.ours, x.theirs, x.theirs, x.op) for x in found]
