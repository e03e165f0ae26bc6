"""The section `task` of BEiT's files: what sits on the encoder."""

from collections.abc import Mapping
from typing import Any

from beit_jax.checkpoints.foreign.beit_names import SECOND
from beit_jax.checkpoints.foreign.rules import Array


def task(
    shapes: Mapping[str, tuple[int, ...]],
    notes: list[str],
    state: Mapping[str, Array],
    depth: int,
) -> dict[str, Any]:
    """Of our path -> shape of all that is there; says in `notes` what nothing told."""
    if "params/head/kernel" in shapes:
        pool = "mean" if "params/fc_norm/scale" in shapes else "cls"
        classes = shapes["params/head/kernel"][0]
        return {"name": "classify", "classes": classes, "pool": pool}
    target = {"name": "tokens", "checkpoint": "untrained"}
    if "params/lm_head/kernel" in shapes:
        vocab = shapes["params/lm_head/kernel"][0]
        target["untrained"] = {"vocab": vocab}
        notes.append(f"it predicts {vocab} tokens, of a tokenizer that it lacks")
    head = _second(shapes, notes, state, depth)
    return {"name": "pretrain", "target": target, **({"head": head} if head else {})}


def _second(
    shapes: Mapping[str, tuple[int, ...]],
    notes: list[str],
    state: Mapping[str, Array],
    depth: int,
) -> dict[str, Any]:
    """The section `head` of BEiT v2's two predictions; {} where there is but one."""
    if f"params/{SECOND}layers/attn/qkv" not in shapes:
        return {}
    start, early = f"{SECOND}layers.", max(1, depth - 3)
    layers = {name.split(".")[1] for name in state if name.startswith(start)}
    told = "3 blocks before the last as published: the weights do not tell"
    notes.append(f"task.head.early={early}, {told}")
    return {
        "name": "aggregation",
        "early": early,
        "layers": len(layers),
        "shared": f"params/{SECOND}lm_head/kernel" not in shapes,
    }
