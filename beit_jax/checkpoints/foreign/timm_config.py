"""config.json of timm: what it tells of a BEiT, and how one of ours is told to timm."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

from beit_jax.checkpoints.foreign import preparation
from beit_jax.checkpoints.foreign.beit_names import ENCODER, OWN_TABLE, SHARED_TABLE
from beit_jax.checkpoints.foreign.preparation import Preparation
from beit_jax.checkpoints.foreign.processor_fields import three
from beit_jax.checkpoints.foreign.rules import Array, pair
from beit_jax.checkpoints.steps import Restored
from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.models.presets import released_layer_scale

FILE = "config.json"
# timm's networks that compute as BEiT does: EVA's first is a BEiT without a table.
FAMILIES = ("beit", "eva_giant_", "vit_", "deit_")
NORM_EPS = 1e-6  # of timm's LayerNorms, which no argument changes
FILTERS = {name: name for name in ("lanczos", "bilinear", "bicubic")} | {"box": "area"}
# Of timm's pretrained_cfg.
DEFAULTS = {
    "mean": PIXEL_SPACES["imagenet"].mean,
    "std": PIXEL_SPACES["imagenet"].std,
    "crop_pct": 0.875,
}
# Entry points of timm by features and side of the images, as their names say.
ARCHITECTURES = {
    (768, 224): "beit_base_patch16_224",
    (768, 384): "beit_base_patch16_384",
    (1024, 224): "beit_large_patch16_224",
    (1024, 384): "beit_large_patch16_384",
    (1024, 512): "beit_large_patch16_512",
}
HEADS = {768: 12, 1024: 16, 1408: 16}  # of FAMILIES, where no model_args tell


def of_texts(texts: Mapping[str, Any]) -> dict[str, Any]:
    """timm's config.json in today's form, as timm itself brings it there; {}: none."""
    config = dict(texts.get(FILE, {}))
    if "pretrained_cfg" not in config:
        if not {"architecture", "mean", "std"} <= config.keys():
            return {}
        config = {"architecture": config["architecture"], "pretrained_cfg": config}
    images = dict(config["pretrained_cfg"])
    if "labels" in images:
        images.setdefault("label_names", images["labels"])
    for name in ("num_classes", "label_names", "label_descriptions"):
        if name in config:
            images[name] = config[name]
    return config | {"pretrained_cfg": images}


def check(config: Mapping[str, Any]) -> None:
    """Raises ValueError for a network that ours is not, whatever its names are."""
    architecture = config.get("architecture", "beit")
    if not architecture.startswith(FAMILIES):
        raise ValueError(f"{FILE} has architecture={architecture!r}, no BEiT")
    args = config.get("model_args", {})
    for name in ("swiglu_mlp", "scale_mlp", "use_rot_pos_emb"):
        if args.get(name):
            raise ValueError(f"{FILE} has {name}, which no BEiT of ours has")
    norms = {"avg": True, "token": False}  # the head's own one follows the mean
    pool = args.get("global_pool", config.get("global_pool", "avg"))
    if args.get("use_fc_norm") not in (None, norms.get(pool)):
        raise ValueError(
            f"{FILE} has global_pool={pool!r} with use_fc_norm={args['use_fc_norm']}; "
            "ours has fc_norm behind the mean, and norm before [CLS]"
        )


def heads(config: Mapping[str, Any], dim: int) -> int:
    """Of attention; 0: not told."""
    if told := config.get("model_args", {}).get("num_heads"):
        return told
    return HEADS.get(dim, 0) if config else 0


def image_size(config: Mapping[str, Any]) -> Any:
    """As the section `model` has it; None: not told."""
    told = config.get("model_args", {}).get("img_size")
    size = told or config.get("pretrained_cfg", {}).get("input_size", ())[1:]
    if not size:
        return None
    height, width = pair(size)
    return height if height == width else (height, width)


def class_names(config: Mapping[str, Any], classes: int) -> tuple[list[str], list[str]]:
    """Names in the order of the logits, and what must be said of them."""
    images = config.get("pretrained_cfg", {})
    names = images.get("label_names") or []
    if isinstance(names, Mapping):
        names = [names.get(str(i), "") for i in range(max(classes, len(names)))]
    if names and (len(names) != classes or not all(names)):
        return [], [f"label_names of {len(names)} classes, not of {classes}: left out"]
    notes = []
    if names and images.get("label_descriptions"):
        notes = ["label_descriptions are left out: classes are called by label_names"]
    return list(map(str, names)), notes


def prepared(config: Mapping[str, Any], side: int, pixels: str) -> Preparation:
    """How timm's own evaluation shows images.

    Args:
      side: of the network's images; the longer one.
      pixels: the user's word, which wins.
    """
    images = config["pretrained_cfg"]
    known = images.get("interpolation") or "bicubic"
    if known not in FILTERS:
        raise ValueError(f"{FILE}: interpolation={known!r}, none of {[*FILTERS]}")
    lacks = [name for name in DEFAULTS if images.get(name) is None]
    told = {**images, **{name: DEFAULTS[name] for name in lacks}}
    crop_pct, mode = told["crop_pct"], images.get("crop_mode") or "center"
    mean, std = (three(f"{FILE}: {name}", told[name]) for name in ("mean", "std"))
    if not (isinstance(crop_pct, (int, float)) and 0 < crop_pct <= 1):
        raise ValueError(f"{FILE}: crop_pct={crop_pct!r} must be in (0, 1]")
    made, notes = preparation.centre(crop_pct), ()
    if mode == "squash":
        resized = int(side / crop_pct)
        made = preparation.whole(preparation.share(side, resized, round))
    elif mode == "border":
        made = preparation.fit(preparation.level(mean))
        if crop_pct < 1:
            notes = (
                f"timm shows {crop_pct:.1%} of the bordered image, here all is seen",
            )
    if lacks:
        words = ", ".join(f"{name}={DEFAULTS[name]}" for name in lacks)
        notes += (f"{words}: timm's defaults, for {FILE} does not tell",)
    return Preparation(
        pixels or preparation.space(mean, std),
        FILTERS[known],
        made,
        notes,
    )


def arguments(saved: Restored, flat: Mapping[str, Array]) -> dict[str, Any]:
    """model_args: what makes timm's Beit the network that ours is."""
    depth, dim, _, count, _ = flat[f"{ENCODER}/blocks/attn/qkv"].shape
    model = saved.config["model"]
    sizes = pair(model["image_size"])
    scaled = f"{ENCODER}/blocks/gamma_1" in flat
    absolute = f"{ENCODER}/pos_embed" in flat or model.get("abs_pos_embed") == "sincos"
    return {
        "img_size": sizes[0] if sizes[0] == sizes[1] else list(sizes),
        "patch_size": flat[f"{ENCODER}/patch_embed/proj/kernel"].shape[0],
        "num_classes": classes(flat),
        "global_pool": "avg" if "params/fc_norm/scale" in flat else "token",
        "embed_dim": dim,
        "depth": depth,
        "num_heads": count,
        "mlp_ratio": _ratio(flat[f"{ENCODER}/blocks/mlp/fc1/kernel"].shape[-1], dim),
        "qkv_bias": f"{ENCODER}/blocks/attn/q_bias" in flat,
        "init_values": released_layer_scale(depth) if scaled else 0.0,
        "use_abs_pos_emb": absolute,
        "use_rel_pos_bias": OWN_TABLE in flat,
        "use_shared_rel_pos_bias": SHARED_TABLE in flat,
    }


def _ratio(hidden: int, dim: int) -> float:
    """That of which timm makes `hidden` again: int(dim * ratio)."""
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else math.nextafter(ratio, math.inf)


def classes(flat: Mapping[str, Array]) -> int:
    """Of the head; 0: there is none."""
    return flat["params/head/bias"].size if "params/head/bias" in flat else 0


def architecture(args: Mapping[str, Any]) -> str:
    """timm's entry point that is nearest; the arguments say what it differs by."""
    side = max(pair(args["img_size"]))

    def distance(key: tuple[int, int]) -> tuple[int, int]:
        return abs(key[0] - args["embed_dim"]), abs(key[1] - side)

    return ARCHITECTURES[min(ARCHITECTURES, key=distance)]


def written(
    saved: Restored, flat: Mapping[str, Array]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """config.json, of which `local-dir:` makes the network, and what differs there."""
    args, card = arguments(saved, flat), saved.card
    images, notes = _pretrained_cfg(card)
    config = {
        "architecture": architecture(args),
        "num_classes": args["num_classes"],
        "num_features": args["embed_dim"],
        "global_pool": args["global_pool"],
        "model_args": args,
        "pretrained_cfg": images | {"num_classes": args["num_classes"]},
    }
    if card["class_names"]:
        config["label_names"] = config["pretrained_cfg"]["label_names"] = list(
            card["class_names"]
        )
    return config, (*notes, *differences(card))


def of_file(
    saved: Restored, flat: Mapping[str, Array], target: pathlib.Path
) -> tuple[str, ...]:
    """How timm makes the network of a file, which has no config beside it."""
    args = arguments(saved, flat)
    if args["use_shared_rel_pos_bias"]:  # of which a file has copies
        args |= {"use_rel_pos_bias": True, "use_shared_rel_pos_bias": False}
    args |= {"checkpoint_path": str(target)}
    words = ", ".join(f"{name}={value!r}" for name, value in args.items())
    mean, std = (tuple(saved.card[name]) for name in ("mean", "std"))
    call = f"timm.create_model({architecture(args)!r}, {words})"
    mode, crop_pct, notes = _crop(saved.card)
    images = (
        f"images of mean {mean}, deviation {std}, crop_mode={mode!r}, "
        f"crop_pct={crop_pct}, interpolation={saved.card['interpolation']!r}, which "
        "the file cannot tell"
    )
    return (*differences(saved.card), *notes, f"{call}; {images}")


def differences(card: Mapping[str, Any]) -> tuple[str, ...]:
    """What timm computes otherwise, in any form."""
    if card["norm_eps"] == NORM_EPS:
        return ()
    return (f"timm's LayerNorms have epsilon {NORM_EPS}, these {card['norm_eps']}",)


def _pretrained_cfg(
    card: Mapping[str, Any],
) -> tuple[dict[str, Any], tuple[str, ...]]:
    height, width = card["image_size"]
    filters = {ours: theirs for theirs, ours in FILTERS.items()}
    mode, crop_pct, notes = _crop(card)
    return {
        "input_size": [3, height, width],
        "fixed_input_size": True,
        "interpolation": filters[card["interpolation"]],
        "crop_pct": crop_pct,
        "crop_mode": mode,
        "mean": list(card["mean"]),
        "std": list(card["std"]),
        "pool_size": None,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }, notes


def _crop(card: Mapping[str, Any]) -> tuple[str, float, tuple[str, ...]]:
    """crop_mode and crop_pct, and what they do not say."""
    frame, side = card["frame"], max(card["image_size"])
    if frame["name"] == "centre":
        return "center", frame["crop_pct"], ()
    if frame["name"] == "whole":
        # timm cuts the fraction off where we round.
        resized = round(side / frame["crop_pct"])
        return "squash", preparation.share(side, resized, int), ()
    if frame["name"] != "fit":
        return "center", 1.0, (f"timm has no frame {frame['name']!r}: the centre",)
    fill, notes = preparation.level(card["mean"]), ()
    if frame["align"] != "centre" or tuple(frame["fill"]) != fill:
        notes = (f"timm puts the image in the middle of a border of colour {fill}",)
    return "border", 1.0, notes
