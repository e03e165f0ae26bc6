"""Segmentation in configs: what a state dict and transformers' config.json tell of the
task, and what config.json is to tell."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from beit_jax.checkpoints.foreign import preparation, processors, segment_names
from beit_jax.checkpoints.foreign.rules import Array
from beit_jax.checkpoints.steps import Restored

Shapes = Mapping[str, tuple[int, ...]]  # path of ours -> shape of theirs
POOLS = [1, 2, 3, 6]
OURS = "tap_convention"  # of config.json: a field of ours, which others pass over


def task(
    head: str, shapes: Shapes, config: Mapping[str, Any], depth: int, notes: list[str]
) -> dict[str, Any]:
    """The section `task` of a network with a head of segment_names.HEADS.

    Raises:
      ValueError: a head that ours cannot be.
    """
    made = {
        "name": "segment",
        "classes": shapes["params/decode_head/conv_seg/kernel"][0],
        "head": SETTINGS[head](shapes, config, notes),
    }
    if config:
        weight = config.get("auxiliary_loss_weight", 0.4)
        made |= {"auxiliary_weight": weight, **_taps(config, depth, notes)}
    return made


def _taps(config: Mapping[str, Any], depth: int, notes: list[str]) -> dict[str, Any]:
    """Blocks, and how their numbers are meant: see `tasks.segment.Segment`.

    The weights that are known were trained by the official code, whose numbers they
    have; but the number of blocks is none of those.
    """
    taps = tuple(config.get("out_indices") or quarters(depth))
    convention = config.get(OURS) or ("hf" if max(taps) >= depth else "official")
    if convention == "official":
        notes.append(
            f"out_indices={list(taps)} are blocks from 0, as the official code counts; "
            "transformers reads two blocks earlier: task.tap_convention='hf'"
        )
    return {"taps": taps, "tap_convention": convention}


def quarters(depth: int) -> tuple[int, ...]:
    """The last block of each quarter: what `taps` of () are."""
    return tuple(depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4))


def _width(shapes: Shapes, path: str) -> int:
    return shapes[f"params/{path}/conv/kernel"][0]


def _count(shapes: Shapes, start: str) -> int:
    """How many convolutions have names with numbers behind `start`."""
    pattern = re.compile(rf"params/{start}_\d+/conv/kernel")
    return sum(bool(pattern.fullmatch(path)) for path in shapes)


def _upernet(
    shapes: Shapes, config: Mapping[str, Any], notes: list[str]
) -> dict[str, Any]:
    pools = config.get("pool_scales", POOLS)
    if (found := _count(shapes, "decode_head/psp_modules")) != len(pools):
        raise ValueError(
            f"its head pools to {found} sizes, which are not {pools}: config.json of "
            "transformers tells them as pool_scales, the official code always has these"
        )
    if (convs := _count(shapes, "auxiliary_head/convs")) > 1:
        raise ValueError(f"its auxiliary head has {convs} convolutions; ours has one")
    return {
        "name": "upernet",
        "channels": _width(shapes, "decode_head/bottleneck"),
        "auxiliary": _width(shapes, "auxiliary_head/convs_0") if convs else 0,
        "pools": tuple(pools),
    }


def _up(shapes: Shapes, config: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    channels, _, size, _ = shapes["params/decode_head/up_convs_0/conv/kernel"]
    name, scale = ("setr_naive", 4) if size == 1 else ("setr_pup", 2)
    notes.append(f"{name}: each convolution is upsampled {scale} times, as in mmseg")
    return {
        "name": name,
        "channels": channels,
        "convs": _count(shapes, "decode_head/up_convs"),
        "size": size,
        "auxiliary": _count(shapes, "auxiliary_head_0/up_convs"),
    }


def _mla(shapes: Shapes, config: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    return {
        "name": "setr_mla",
        "channels": _width(shapes, "neck/feat_extract_0"),
        "mla_channels": _width(shapes, "decode_head/up_0_0"),
        "auxiliary": "params/auxiliary_head_0/conv_seg/kernel" in shapes,
    }


SETTINGS = {"upernet": _upernet, "setr_pup": _up, "setr_mla": _mla}


def to_config(
    saved: Restored, flat: Mapping[str, Array]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What config.json tells of our task besides its classes, and notes.

    Args:
      flat: our leaves by path.

    Raises:
      ValueError: what transformers' network cannot be.
    """
    section = saved.config["task"]
    depth, dim = flat["params/encoder/blocks/attn/qkv"].shape[:2]
    channels = len(flat["params/decode_head/bottleneck/bn/bias"])
    auxiliary = len(flat.get("params/auxiliary_head/convs_0/bn/bias", ()))
    if channels != dim:
        raise ValueError(
            f"transformers has a head of as many channels as the encoder, {dim}, not "
            f"{channels}; write it --to official"
        )
    taps = tuple(section.get("taps") or quarters(depth))
    if len({*taps}) < 4 or list(taps) != sorted(taps):
        raise ValueError(
            f"transformers has taps of four blocks in their order, not {taps}; write "
            "it --to official"
        )
    convention, notes = section.get("tap_convention", "official"), ()
    if convention == "official":
        notes = (
            "transformers reads out_indices as blocks two earlier than these weights "
            "are for: its maps will be others",
        )
    return {
        "architectures": ["BeitForSemanticSegmentation"],
        "use_mean_pooling": True,
        "out_indices": list(taps),
        OURS: convention,
        "pool_scales": list(dict(section.get("head", ())).get("pools", POOLS)),
        "use_auxiliary_head": auxiliary > 0,
        "auxiliary_channels": auxiliary or 256,
        "auxiliary_num_convs": 1,
        "auxiliary_concat_input": False,
        "auxiliary_loss_weight": section.get("auxiliary_weight", 0.4),
        "semantic_loss_ignore_index": 255,
    }, notes


def to_processor(saved: Restored) -> tuple[dict[str, Any], tuple[str, ...]]:
    """preprocessor_config.json, and notes: whole images are squashed to the view."""
    card = {**saved.card, "frame": preparation.whole()}
    processor, notes = processors.to_processor(card)
    source = saved.config["data"].get("source") or {}
    reduces = bool(source.get("reduce_zero_label", False))
    note = "transformers squashes images to the view, which evaluation here does not"
    return processor | {"do_reduce_labels": reduces}, (*notes, note)


def reduced(processor: Mapping[str, Any]) -> tuple[str, ...]:
    """What is to be told of the labels that weights were trained on."""
    if processor.get("do_reduce_labels") or processor.get("reduce_labels"):
        told = "label 0 of its maps was ignored, and 1 the first class: "
        return (told + "reduce_zero_label=True in the section of a source",)
    return ()


def counters(names: Mapping[str, Array] | list[str]) -> dict[str, Array]:
    """The counter beside each batch norm's mean, which PyTorch's loaders want."""
    mean = "running_mean"
    return {
        name.removesuffix(mean) + segment_names.COUNTER: np.zeros((), np.int64)
        for name in names
        if name.endswith(mean)
    }
