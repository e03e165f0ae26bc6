"""Settings of ViTs that go by a name: sizes, and the networks that BEiT has had."""

from collections.abc import Mapping
from typing import Any

from beit_jax.lookup import lookup

VARIANTS = {
    "tiny": {"dim": 192, "depth": 12, "heads": 3},
    "small": {"dim": 384, "depth": 12, "heads": 6},
    "base": {"dim": 768, "depth": 12, "heads": 12},
    "large": {"dim": 1024, "depth": 24, "heads": 16},
}


def released_layer_scale(depth: int) -> float:
    """How gammas start in the released networks: Large has 24 blocks, others 12."""
    return 0.1 if depth <= 12 else 1e-5


def _released(depth: int, pretraining: bool) -> dict[str, Any]:
    """The network of the released weights, made by the official scripts' defaults."""
    return {
        "abs_pos_embed": "none",
        "rel_pos_bias": "shared" if pretraining else "per_block",
        "layer_scale": released_layer_scale(depth),
    }


def _paper_plain(depth: int, pretraining: bool) -> dict[str, Any]:
    """The plain ViT of BEiT's ImageNet-1k numbers (arXiv:2106.08254)."""
    return {"abs_pos_embed": "learned", "rel_pos_bias": "none", "layer_scale": 0.0}


# Two networks go by the name of BEiT-B.
PRESETS = {"released": _released, "paper_plain": _paper_plain}


def filled(model: Mapping[str, Any], pretraining: bool) -> dict[str, Any]:
    """A section `model`, the settings of its variant and its preset filled in.

    Raises:
      ValueError: no such variant or preset.
    """
    made = {"init_as": "pretrain" if pretraining else "finetune", **model}
    if variant := made.pop("variant", ""):
        made = lookup(VARIANTS, variant, "config.model.variant") | made
    if preset := made.pop("preset", ""):
        make = lookup(PRESETS, preset, "config.model.preset")
        made = make(made.get("depth", 12), pretraining) | made
    return made
