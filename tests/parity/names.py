"""Which tensor of a torch peer is which of ours.

BEiT's tables are rows (theirs, ours, layout); `layout` turns our array into theirs.
Where `theirs` has {i}, ours is stacked on axis 0. Our paths are those of the tasks.
tests/models/official.py has tables for the way back.
"""

import re
from collections.abc import Callable, Mapping

import numpy as np

from beit_jax.convert import dvae, rules
from tests.parity.cases import Case

Array = np.ndarray
Row = tuple[str, str, Callable[[Array], Array]]


def same(x: Array) -> Array:
    return x


def from_heads(x: Array) -> Array:
    """(A, K, D) -> (D, A * K)"""
    return x.reshape(-1, x.shape[-1]).T


def to_heads(x: Array) -> Array:
    """(D, ..., A, K) -> (... * A * K, D)"""
    return x.reshape(len(x), -1).T


def _norm(theirs: str, ours: str) -> tuple[Row, Row]:
    return (
        (f"{theirs}.weight", f"{ours}/scale", same),
        (f"{theirs}.bias", f"{ours}/bias", same),
    )


def _linear(theirs: str, ours: str, layout=np.transpose) -> tuple[Row, Row]:
    return (
        (f"{theirs}.weight", f"{ours}/kernel", layout),
        (f"{theirs}.bias", f"{ours}/bias", same),
    )


ENCODER, BLOCKS = "encoder/", "encoder/blocks/"
TABLE = "relative_position_bias_table"

OFFICIAL = (
    ("cls_token", f"{ENCODER}cls_token", same),
    ("pos_embed", f"{ENCODER}pos_embed", same),
    *_linear("patch_embed.proj", f"{ENCODER}patch_embed/proj", rules.CONV.write),
    (f"rel_pos_bias.{TABLE}", f"{ENCODER}rel_pos_bias/table", same),
    ("blocks.{i}.gamma_1", f"{BLOCKS}gamma_1", same),
    ("blocks.{i}.gamma_2", f"{BLOCKS}gamma_2", same),
    *_norm("blocks.{i}.norm1", f"{BLOCKS}norm1"),
    *_norm("blocks.{i}.norm2", f"{BLOCKS}norm2"),
    ("blocks.{i}.attn.qkv.weight", f"{BLOCKS}attn/qkv", to_heads),
    ("blocks.{i}.attn.q_bias", f"{BLOCKS}attn/q_bias", np.ravel),
    ("blocks.{i}.attn.v_bias", f"{BLOCKS}attn/v_bias", np.ravel),
    (f"blocks.{{i}}.attn.{TABLE}", f"{BLOCKS}attn/rel_pos_bias/table", same),
    *_linear("blocks.{i}.attn.proj", f"{BLOCKS}attn/proj", from_heads),
    *_linear("blocks.{i}.mlp.fc1", f"{BLOCKS}mlp/fc1"),
    *_linear("blocks.{i}.mlp.fc2", f"{BLOCKS}mlp/fc2"),
    *_norm("norm", f"{ENCODER}norm"),
    *_norm("fc_norm", "fc_norm"),
    *_linear("head", "head"),
)

EMBEDDINGS, LAYERS = "beit.embeddings.", "beit.layers.{i}."
PATCHES = f"{EMBEDDINGS}patch_embeddings.projection"
HUGGING_FACE = (
    (f"{EMBEDDINGS}cls_token", f"{ENCODER}cls_token", same),
    (f"{EMBEDDINGS}mask_token", f"{ENCODER}mask_token", same),
    (f"{EMBEDDINGS}position_embeddings", f"{ENCODER}pos_embed", same),
    *_linear(PATCHES, f"{ENCODER}patch_embed/proj", rules.CONV.write),
    (f"beit.shared_position_bias.{TABLE}", f"{ENCODER}rel_pos_bias/table", same),
    (f"{LAYERS}lambda_1", f"{BLOCKS}gamma_1", same),
    (f"{LAYERS}lambda_2", f"{BLOCKS}gamma_2", same),
    *_norm(f"{LAYERS}layernorm_before", f"{BLOCKS}norm1"),
    *_norm(f"{LAYERS}layernorm_after", f"{BLOCKS}norm2"),
    *(
        (
            f"{LAYERS}attention.{letter}_proj.weight",
            f"{BLOCKS}attn/qkv",
            lambda x, part=part: to_heads(x[:, part]),
        )
        for part, letter in enumerate("qkv")
    ),
    (f"{LAYERS}attention.q_proj.bias", f"{BLOCKS}attn/q_bias", np.ravel),
    (f"{LAYERS}attention.v_proj.bias", f"{BLOCKS}attn/v_bias", np.ravel),
    (
        f"{LAYERS}relative_position_bias.{TABLE}",
        f"{BLOCKS}attn/rel_pos_bias/table",
        same,
    ),
    *_linear(f"{LAYERS}attention.o_proj", f"{BLOCKS}attn/proj", from_heads),
    *_linear(f"{LAYERS}mlp.fc1", f"{BLOCKS}mlp/fc1"),
    *_linear(f"{LAYERS}mlp.fc2", f"{BLOCKS}mlp/fc2"),
)
HUGGING_FACE_HEADS = {
    "mim": (*_norm("layernorm", f"{ENCODER}norm"), *_linear("lm_head", "lm_head")),
    "mean": (
        *_norm("beit.pooler.layernorm", "fc_norm"),
        *_linear("classifier", "head"),
    ),
    "cls": (
        *_norm("beit.layernorm", f"{ENCODER}norm"),
        *_linear("classifier", "head"),
    ),
}


def theirs(case: Case, flat: Mapping[str, Array]) -> dict[str, Array]:
    """Our parameters (or gradients) by path -> the peer's by name."""
    if case.kind.startswith("dvae"):
        return _dvae(case, flat)
    table = OFFICIAL
    if case.peer == "transformers":
        table = HUGGING_FACE + HUGGING_FACE_HEADS[case.kind]
    unknown = flat.keys() - {ours for _, ours, _ in table}
    assert not unknown, f"names.py has no {sorted(unknown)}"
    state = {}
    for name, ours, layout in table:
        if ours in flat:
            stack = flat[ours] if "{i}" in name else [flat[ours]]
            state |= {name.format(i=i): layout(x) for i, x in enumerate(stack)}
    return state


def _dvae(case: Case, flat: Mapping[str, Array]) -> dict[str, Array]:
    table = dvae.rows(**case.model)
    if case.kind == "dvae":
        return rules.write(table, flat)
    table = [row for row in table if row[0].startswith("encoder.")]
    return {flava(name): x for name, x in rules.write(table, flat).items()}


def flava(name: str) -> str:
    """DALL-E's name of a parameter of the encoder -> FlavaImageCodebook's."""
    name = name.removeprefix("encoder.").replace("res_path", "res_path.path")
    name = re.sub(r"(group_\d)", r"\1.group", name)
    return re.sub("w$", "weight", re.sub("b$", "bias", name))
