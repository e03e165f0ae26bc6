"""What images go through before a network, as Hugging Face and timm write it down."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from beit_jax.checkpoints.foreign.rules import Undecided
from beit_jax.models.pixels import PIXEL_SPACES

FILE = "preprocessor_config.json"
FILTERS = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # PIL's numbers
# Files of these names hold weights of BEiT v2, or of v1 without ImageNet-22k: trained
# with ImageNet's mean and deviation, all others with 0.5 and 0.5.
IMAGENET_NAMES = re.compile(r"beit_?v?2|(?<!\d)pt1k|1k_pt(?!22k)")


class Preparation(NamedTuple):
    """Of evaluation's images."""

    pixels: str  # one of PIXEL_SPACES
    interpolation: str
    crop_pct: float
    notes: tuple[str, ...] = ()


def of_texts(
    texts: Mapping[str, Any], name: str, image_size: tuple[int, int], pixels: str = ""
) -> Preparation:
    """What the texts beside the weights tell; the official code's where they do not.

    Args:
      texts: file name -> JSON, see files.Found.
      name: of the file, which tells of BEiT v2.
      pixels: the user's word, which wins.

    Raises:
      ValueError: a mean and deviation that are none of PIXEL_SPACES.
    """
    short = max(image_size)
    crop_pct = 224 / 256 if short < 384 else 1.0  # as run_class_finetuning.py does
    if processor := texts.get(FILE):
        return _of_processor(processor, short, pixels)
    if timm := texts.get("config.json", {}).get("pretrained_cfg"):
        return Preparation(
            pixels or _space(timm["mean"], timm["std"]),
            timm.get("interpolation", "bicubic"),
            timm.get("crop_pct", crop_pct),
        )
    if pixels:
        return Preparation(pixels, "bicubic", crop_pct)
    guess = "imagenet" if IMAGENET_NAMES.search(name) else "half"
    note = (
        f"pixels={guess!r} by the name {name!r}: the file does not tell. BEiT v1's "
        "weights of ImageNet-22k want 'half', all others 'imagenet': --pixels"
    )
    return Preparation(guess, "bicubic", crop_pct, (note,))


def _of_processor(processor: Mapping[str, Any], side: int, pixels: str) -> Preparation:
    crop_pct, notes = 1.0, ()
    size, crop = (_side(processor.get(key)) for key in ("size", "crop_size"))
    if processor.get("do_center_crop") and size and crop:
        crop_pct = crop / size
    if crop_pct > 1:
        raise ValueError(f"{FILE} cuts {crop} px out of images of {size} px")
    if processor.get("do_resize", True):
        notes = (
            f"the image processor squashes images to {size or side} px; here they keep "
            "their shape and the centre is seen",
        )
    resample = processor.get("resample", 3)
    if resample not in FILTERS:
        raise ValueError(f"{FILE}: resample={resample}, none of PIL's {FILTERS}")
    return Preparation(pixels or _pixels(processor), FILTERS[resample], crop_pct, notes)


def _pixels(processor: Mapping[str, Any]) -> str:
    if not processor.get("do_normalize", True):
        return "unit" if processor.get("do_rescale", True) else "raw"
    half = (0.5, 0.5, 0.5)  # what BeitImageProcessor has where nothing is said
    mean, std = (processor.get(f"image_{name}", half) for name in ("mean", "std"))
    return _space(mean, std)


def _side(size: Any) -> int:
    """Of 224, {"height": 224, "width": 224} or {"shortest_edge": 224}; 0: none."""
    return max(size.values()) if isinstance(size, dict) else size or 0


def _space(mean: Any, std: Any) -> str:
    """The pixel space that has this mean and deviation."""
    want = (*mean, *std)
    for name, space in PIXEL_SPACES.items():
        have = (*space.mean, *space.std)
        if max(abs(a - b) for a, b in zip(have, want, strict=True)) < 1e-6:
            return name
    raise Undecided(
        f"images are to have mean {tuple(mean)} and deviation {tuple(std)}, which no "
        f"pixel space has; name the nearest by --pixels: {', '.join(PIXEL_SPACES)}"
    )


def to_processor(
    card: Mapping[str, Any],
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """preprocessor_config.json of a BeitImageProcessor, and what differs there."""
    height, width = card["image_size"]
    numbers = {name: number for number, name in FILTERS.items()}
    crop = {"height": height, "width": width}
    crop_pct = card["frame"]["crop_pct"]
    size = {side: round(length / crop_pct) for side, length in crop.items()}
    processor = {
        "image_processor_type": "BeitImageProcessor",
        "do_resize": True,
        "size": size,
        "do_center_crop": crop_pct < 1,
        "crop_size": crop,
        "resample": numbers[card["interpolation"]],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(card["mean"]),
        "image_std": list(card["std"]),
        "do_reduce_labels": False,
    }
    note = "BeitImageProcessor squashes images where evaluation here keeps their shape"
    return processor, (note,)
