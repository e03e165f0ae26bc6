"""Names of plain ViTs, as those of MAE, DINO and timm's vit_*, by those of BEiT.

They are BEiT's but for the biases of attention: the official code has one array for
queries, keys and values, transformers one of each. That of the keys adds the same to
all logits of a query, which softmax cancels; ours have none. The decoder is MAE's.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np

from beit_jax.checkpoints.foreign.rules import LINEAR, SAME, Op


class Part(NamedTuple):
    """A parameter and its names; those of one `group` come together or not at all."""

    group: str  # "": every BEiT has it
    ours: str
    official: str
    hf: str | tuple[str, ...]  # "": it has no place there
    op: Op = SAME
    hf_op: Op | None = None  # where it is another


# Groups of BEiT's parts that no plain ViT has; a "mask_token" is the decoder's.
LACKED = ("mask", "shared", "per_block", "scale", "lm_head")
# A decoder's blocks: on the hub, and as version 5 of transformers writes them.
NESTED = ("decoder.decoder_layers.", "decoder.decoder_encoder.layer.")
POSITIONS, DECODER_POSITIONS = "params/encoder/pos_embed", "params/decoder_pos_embed"
KEY_BIAS = ("attention.attention.key.bias", "attention.k_proj.bias")


def has_key_bias(state: Collection[str]) -> bool:
    return any(name.endswith(KEY_BIAS) for name in state)


def parts(encoder: Iterable[Part], decoder: Iterable[Part]) -> list[Part]:
    """Those of a plain ViT, from BEiT's of the encoder's heads and of the decoder's."""
    found = [_plain(part) for part in encoder if part.group not in LACKED]
    blocks = [part for part in decoder if "/blocks/" in part.ours]
    blocks = [_plain(part) for part in blocks if part.group not in LACKED]
    return [
        *found,
        *map(_of_decoder, blocks),
        Part("decoder", "params/mask_token", "mask_token", "decoder.mask_token"),
        Part("decoder", DECODER_POSITIONS, *_names("decoder_pos_embed")),
        *linear("decoder", "params/decoder_embed", *_names("decoder_embed")),
        *norm("decoder", "params/decoder_norm", *_names("decoder_norm")),
        *linear("decoder", "params/decoder_pred", *_names("decoder_pred")),
    ]


def linear(group: str, ours: str, official: str, hf: str, op: Op = LINEAR):
    return (
        Part(group, f"{ours}/kernel", f"{official}.weight", hf and f"{hf}.weight", op),
        Part(group, f"{ours}/bias", f"{official}.bias", hf and f"{hf}.bias"),
    )


def norm(group: str, ours: str, official: str, hf: str):
    return (
        Part(group, f"{ours}/scale", f"{official}.weight", hf and f"{hf}.weight"),
        Part(group, f"{ours}/bias", f"{official}.bias", hf and f"{hf}.bias"),
    )


def _names(official: str) -> tuple[str, str]:
    return official, f"decoder.{official}"


def _plain(part: Part) -> Part:
    hf = part.hf if isinstance(part.hf, tuple) else (part.hf,)
    hf = tuple(name.replace("beit.", "vit.") for name in hf)
    part = part._replace(hf=hf[0] if isinstance(part.hf, str) else hf)
    for third, name in enumerate(("q_bias", None, "v_bias")):
        if name and part.ours.endswith(name):
            official = part.official.replace(name, "qkv.bias")
            op = _third_of_three(third, part.hf_op or part.op)
            return part._replace(official=official, op=op, hf_op=part.op)
    return part


def _third_of_three(third: int, op: Op) -> Op:
    """(3 D,) <-> what `op` makes of one (D,) of it; the other two are written as 0."""

    def write(x):
        made = np.zeros((3, x.size), x.dtype)
        made[third] = op.write(x)
        return made.reshape(-1)

    return Op(lambda x: op.read(np.split(x, 3)[third]), write)


def _of_decoder(part: Part) -> Part:
    hf = part.hf if isinstance(part.hf, tuple) else (part.hf,)
    hf = tuple(name.replace("vit.encoder.layer.", NESTED[0]) for name in hf)
    return part._replace(
        group="decoder",
        ours=part.ours.replace("/encoder/blocks/", "/decoder_blocks/"),
        official=f"decoder_{part.official}",
        hf=hf[0] if isinstance(part.hf, str) else hf,
    )
