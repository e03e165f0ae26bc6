"""Names of heads of segmentation: in mmseg, as the official code has it, and in
transformers, of version 4 (which it writes) and of version 5 (in memory)."""

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

from beit_jax.checkpoints.foreign.rules import CONV, CONV_TRANSPOSE, SAME, Op

BACKBONE = "backbone."  # how mmseg calls the encoder, and what makes its maps
COUNTER = "num_batches_tracked"  # of each batch norm, which none of ours needs
# Collection, leaf of ours, leaf of theirs, layout; by kind of layer.
NORM = (("params", "scale", "weight", SAME), ("params", "bias", "bias", SAME))
RUNNING = (
    ("batch_stats", "mean", "running_mean", SAME),
    ("batch_stats", "var", "running_var", SAME),
)
KINDS = {
    "linear": (("params", "kernel", "weight", CONV), NORM[1]),
    "up": (("params", "kernel", "weight", CONV_TRANSPOSE), NORM[1]),
    "norm": NORM,
    "batch_norm": NORM + RUNNING,
    "conv": (
        ("params", "conv/kernel", "conv.weight", CONV),
        *((kind, f"bn/{own}", f"bn.{x}", op) for kind, own, x, op in NORM + RUNNING),
    ),
}


class Layer(NamedTuple):
    """A layer and its names, with numbers {n} and {m} in them."""

    kind: str  # of KINDS
    ours: str
    official: str
    hf: str = ""  # "": transformers has no such head
    version_5: str = ""  # "": the same


UPERNET = (
    Layer(
        "up", "neck/fpn1_up1", "backbone.fpn1.0", "fpn1.0", "fpn.fpn1.conv_transpose1"
    ),
    Layer(
        "batch_norm",
        "neck/fpn1_bn",
        "backbone.fpn1.1",
        "fpn1.1",
        "fpn.fpn1.normalization",
    ),
    Layer(
        "up", "neck/fpn1_up2", "backbone.fpn1.3", "fpn1.3", "fpn.fpn1.conv_transpose2"
    ),
    Layer("up", "neck/fpn2_up", "backbone.fpn2.0", "fpn2.0", "fpn.fpn2"),
    Layer(
        "conv",
        "decode_head/psp_modules_{n}",
        "decode_head.psp_modules.{n}.1",
        "decode_head.psp_modules.{n}.1",
        "decode_head.psp_modules.blocks.{n}.conv",
    ),
    Layer(
        "conv",
        "decode_head/bottleneck",
        "decode_head.bottleneck",
        "decode_head.bottleneck",
        "decode_head.psp_bottleneck",
    ),
    *(
        Layer("conv", f"decode_head/{name}_{{n}}", *2 * [f"decode_head.{name}.{{n}}"])
        for name in ("lateral_convs", "fpn_convs")
    ),
    Layer("conv", "decode_head/fpn_bottleneck", *2 * ["decode_head.fpn_bottleneck"]),
    Layer("conv", "auxiliary_head/convs_{n}", *2 * ["auxiliary_head.convs.{n}"]),
    *(
        Layer("linear", f"{head}/conv_seg", f"{head}.conv_seg", f"{head}.classifier")
        for head in ("decode_head", "auxiliary_head")
    ),
)
_MANY = (("decode_head", "decode_head"), ("auxiliary_head_{m}", "auxiliary_head.{m}"))
LAST = tuple(Layer("linear", f"{a}/conv_seg", f"{b}.conv_seg") for a, b in _MANY)
UP = (
    *LAST,
    *(Layer("norm", f"{a}/norm", f"{b}.norm") for a, b in _MANY),
    *(Layer("conv", f"{a}/up_convs_{{n}}", f"{b}.up_convs.{{n}}.0") for a, b in _MANY),
)
MLA = (
    *LAST,
    Layer("norm", "neck/norm_{n}", "neck.norm.{n}"),
    Layer("conv", "neck/channel_proj_{n}", "neck.mla.channel_proj.{n}"),
    Layer("conv", "neck/feat_extract_{n}", "neck.mla.feat_extract.{n}"),
    Layer("conv", "decode_head/up_{m}_{n}", "decode_head.up_convs.{m}.{n}"),
)
# Head of ours -> its layers.
HEADS = {"upernet": UPERNET, "setr_pup": UP, "setr_naive": UP, "setr_mla": MLA}


class Found(NamedTuple):
    """An array of a head, by the names that it has where it was found."""

    ours: str
    theirs: str
    op: Op


def head_of(state: Collection[str]) -> str:
    """The head of HEADS that a state dict has; "" for none.

    SETR-naive is told from SETR-PUP by its kernels: see segment_config.py.
    """
    if any(name.startswith("neck.mla.") for name in state):
        return "setr_mla"
    if "decode_head.up_convs.0.0.conv.weight" in state:
        return "setr_pup"
    pyramid = any(name.startswith("decode_head.fpn_bottleneck.") for name in state)
    return "upernet" if pyramid else ""


def of_state(state: Collection[str], style: str) -> list[Found]:
    """The arrays of the head that a state dict has.

    Args:
      style: a field of `Layer`, how the names are written there.
    """
    return _found(HEADS.get(head_of(state), ()), state, style, style)


def of_ours(head: str, flat: Collection[str], style: str) -> list[Found]:
    """The arrays of a head of ours, by path.

    Raises:
      ValueError: a head that has no names of that style.
    """
    known = [name for name, rows in HEADS.items() if all(_has(r, style) for r in rows)]
    if head not in known:
        raise ValueError(
            f"{style} has no names for the head {head!r}, only for {known}; --to "
            "safetensors or orbax writes any"
        )
    return _found(HEADS[head], flat, "ours", style)


def _has(layer: Layer, style: str) -> bool:
    return bool(getattr(layer, style, ""))


def _found(
    layers: Iterable[Layer], names: Collection[str], side: str, style: str
) -> list[Found]:
    """What of `names`, written as `side` has them, belongs to the layers."""
    return [
        Found(
            f"{collection}/{own.format(**numbers)}/{leaf}",
            f"{theirs.format(**numbers)}.{_leaf(there, style)}",
            op,
        )
        for layer in layers
        for own, theirs in [(layer.ours, _written(layer, style))]
        for numbers in _numbers(_first(layer, side), names)
        for collection, leaf, there, op in KINDS[layer.kind]
    ]


def _first(layer: Layer, side: str) -> str:
    """A layer's first array, with {n} and {m}."""
    collection, leaf, there, _ = KINDS[layer.kind][0]
    if side == "ours":
        return f"{collection}/{layer.ours}/{leaf}"
    return f"{_written(layer, side)}.{_leaf(there, side)}"


def _written(layer: Layer, style: str) -> str:
    if style == "version_5":
        return layer.version_5 or layer.hf
    return getattr(layer, style)


def _leaf(there: str, style: str) -> str:
    if style != "version_5":
        return there
    return re.sub(r"^bn\.", "normalization.", there.replace("conv.", "convolution."))


def _numbers(template: str, names: Iterable[str]) -> list[dict[str, str]]:
    """What {n} and {m} are in those of the names that fit."""
    pattern = re.escape(template)
    for word in "nm":
        pattern = pattern.replace(rf"\{{{word}\}}", rf"(?P<{word}>\d+)")
    matches = (re.fullmatch(pattern, name) for name in names)
    return [match.groupdict() for match in matches if match]
