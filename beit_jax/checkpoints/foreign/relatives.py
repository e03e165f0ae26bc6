"""Networks that are near to ours and have no place here, told by their names.

Some of them share nearly all of BEiT's names. So that none is taken for one, or in
part, they are looked for before BEiT is.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from beit_jax.checkpoints.foreign.rules import Array


class Relative(NamedTuple):
    """A kind of network that has a name with every one of `parts` in it."""

    what: str
    parts: tuple[str, ...]


# The first that fits is told; what is special comes before what is general.
RELATIVES = (
    Relative("a CLIP with a ResNet", ("logit_scale", "visual.layer1.")),
    Relative("a SigLIP", ("vision_model.head.attention.",)),
    Relative("Data2Vec's vision network", ("data2vec_vision.",)),
    Relative("BEiT-3", ("beit3.",)),
    Relative("SAM's image encoder", ("blocks.0.attn.rel_pos_h",)),
    Relative("a Swin", ("layers.0.blocks.0.attn.",)),
    Relative("a Swin of transformers", ("encoder.layers.0.blocks.0.",)),
    Relative("a ViT with registers (DINOv2, DINOv3)", ("cls_token", "reg_token")),
    Relative("a ViT with registers (DINOv2, DINOv3)", ("register_tokens",)),
    Relative("a DeiT with a distillation token", ("dist_token",)),
    Relative("a DeiT with a distillation token", ("distillation_token",)),
    Relative("a network with rotary positions (EVA-02)", ("blocks.0.attn.q_proj.",)),
    Relative("a network with rotary positions (EVA-02)", ("rope.",)),
    Relative("a network with gated MLPs (EVA-02)", ("blocks.0.mlp.fc1_g.",)),
    Relative("a network with gated MLPs (EVA-02)", ("blocks.0.mlp.w12.",)),
)


def looks_like(state: Mapping[str, Array]) -> str:
    """What a state dict is of, in words; "" for all that is not known here."""
    for relative in RELATIVES:
        if all(_has(state, part) for part in relative.parts):
            return relative.what
    return _gated(state)


def _has(state: Collection[str], part: str) -> bool:
    return any(part in name for name in state)


def _gated(state: Mapping[str, Array]) -> str:
    """EVA-02's small networks have both halves of a gated MLP in one array."""
    first, second = (state.get(f"blocks.0.mlp.{x}.weight") for x in ("fc1", "fc2"))
    if first is None or second is None or len(first) != 2 * second.shape[-1]:
        return ""
    return "a network with gated MLPs (EVA-02)"
