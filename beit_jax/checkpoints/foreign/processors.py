"""preprocessor_config.json of transformers: what images go through, both ways."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from beit_jax.checkpoints.foreign import (
    preparation,
    processor_fields,
    timm_config,
)
from beit_jax.checkpoints.foreign.preparation import Preparation
from beit_jax.checkpoints.foreign.processor_fields import FILE, flag

FILTERS = {1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "area"}  # PIL's numbers
# Files of these names hold weights of BEiT v2, or of v1 without ImageNet-22k: trained
# with ImageNet's mean and deviation, all others with 0.5 and 0.5.
IMAGENET_NAMES = re.compile(r"beit_?v?2|(?<!\d)pt1k|1k_pt(?!22k)")
# "CLIPImageProcessorFast", "BeitFeatureExtractor" -> "clip", "beit".
ENDINGS = re.compile(r"(ImageProcessor(Fast|Pil)?|FeatureExtractor)$")
# Processors by what a number as `size` is to them: both sides, or the short one.
SQUASHING = {"", "beit", "vit", "deit", "flava", "siglip", "blip", "segformer", "dpt"}
SQUASHING |= {"pvt", "donut", "vithybrid", "efficientnet"}
KEEPING = {"clip", "bit", "convnext", "poolformer", "levit", "chineseclip"}
KEEPING |= {"mobilenetv1", "mobilenetv2", "mobilevit", "videomae"}
CROPPING = {"clip", "bit", "levit", "poolformer", "chineseclip"}  # if they don't say


class Resized(NamedTuple):
    """A resize in our words, and the size of what comes out."""

    frame: dict[str, Any]
    view: tuple[int, int]  # (0, 0): as large as the image makes it
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
      ValueError: a mean and deviation that are none of PIXEL_SPACES, a filter that we
        have not, sizes that do not fit together.
    """
    side = max(image_size)
    processor = texts.get(FILE)
    # transformers' wrapper of timm writes timm's config under its own name.
    timm = timm_config.of_texts({timm_config.FILE: processor} if processor else texts)
    if timm:
        return timm_config.prepared(timm, side, pixels)
    if processor:
        return _of_processor(processor, image_size, pixels)
    # As run_class_finetuning.py does.
    frame = preparation.centre(224 / 256 if side < 384 else 1.0)
    note = (
        f"images are resized (bicubic) and cut as the official evaluation does, with "
        f"crop_pct={frame['crop_pct']}: the file does not tell. To evaluate otherwise: "
        "data.eval_frame of a recipe, with --override_card"
    )
    if not pixels:
        pixels = "imagenet" if IMAGENET_NAMES.search(name) else "half"
        note = (
            f"pixels={pixels!r} by the name {name!r}: the file does not tell. BEiT "
            "v1's weights of ImageNet-22k want 'half', all others 'imagenet': "
            f"--pixels; and {note}"
        )
    return Preparation(pixels, "bicubic", frame, (note,))


def _of_processor(
    processor: Mapping[str, Any], image_size: tuple[int, int], pixels: str
) -> Preparation:
    more = processor_fields.check(processor, _kind(processor))
    resample = 3 if processor.get("resample") is None else processor["resample"]
    if not isinstance(resample, int) or resample not in FILTERS:
        raise ValueError(f"{FILE}: resample={resample}, none of PIL's {FILTERS}")
    made = _resize(processor, image_size)
    notes = (*more, *made.notes)
    if made.view not in ((0, 0), image_size):
        have, want = ("x".join(map(str, size)) for size in (made.view, image_size))
        notes += (
            f"the image processor gives {have} px, the weights are for {want} px",
        )
    pixels = pixels or preparation.space(*processor_fields.scale(processor))
    return Preparation(pixels, FILTERS[resample], made.frame, notes)


def _resize(processor: Mapping[str, Any], image_size: tuple[int, int]) -> Resized:
    kind, notes = _kind(processor), ()
    size = _size(processor.get("size"), kind) or _size(image_size, kind)
    crop = (0, 0)
    if flag(processor, "do_center_crop", kind in CROPPING):
        said = processor_fields.sides("crop_size", processor.get("crop_size"))
        crop = _sides("crop_size", said) if said else image_size
    if kind not in SQUASHING | KEEPING and not _fits(processor, size):
        notes = (f"image processor {kind!r} is not known here: its size is followed",)
    if not flag(processor, "do_resize", True):
        note = "the image processor resizes nothing: here images are made to fit"
        return Resized(preparation.centre(), crop, (*notes, note))
    if kind == "donut":
        return Resized(preparation.fit(), (size["height"], size["width"]), notes)
    if _fits(processor, size):
        side = size.get("longest_edge") or size["max_height"]
        view = (side, size.get("max_width", side))
        fill = preparation.level(processor_fields.scale(processor).mean)
        return Resized(preparation.fit(fill, "top_left"), view, notes)
    edge = size.get("shortest_edge", 0)
    if kind == "convnext" and edge:
        return _of_convnext(processor, edge)
    if kind == "poolformer" and processor.get("crop_pct", 0.9):
        edge = int((edge or size["height"]) / processor.get("crop_pct", 0.9))
    if kind == "levit" and edge:
        edge = int(256 / 224 * edge)
    resized = (edge,) * 2 if edge else _sides("size", size)
    made = _cut(resized, crop, bool(edge))
    return made._replace(notes=(*notes, *made.notes))


def _fits(processor: Mapping[str, Any], size: Mapping[str, int]) -> bool:
    """Whether the whole image is shown with its shape kept, in a border."""
    longest = "max_height" in size or size.keys() == {"longest_edge"}
    return longest and flag(processor, "do_pad", False)


def _of_convnext(processor: Mapping[str, Any], edge: int) -> Resized:
    """It cuts where images are small, and squashes where they are large."""
    if edge >= 384:
        return Resized(preparation.whole(), (edge, edge))
    resized = int(edge / (processor.get("crop_pct") or 224 / 256))
    return _cut((resized, resized), (edge, edge), True)


def _cut(resized: tuple[int, int], crop: tuple[int, int], keeps: bool) -> Resized:
    """The centre of an image whose short side, or both of whose sides, were resized.

    Args:
      crop: (0, 0): none.
      keeps: its shape, both numbers being of the short side.
    """
    if any(part > side for part, side in zip(crop, resized, strict=True)):
        have, want = max(resized), max(crop)
        raise ValueError(f"{FILE} cuts {want} px out of images of {have} px")
    notes = ()
    if crop == (0, 0):
        if keeps:
            notes = ("the image processor cuts nothing off: here the centre is seen",)
        frame = preparation.centre() if keeps else preparation.whole()
        return Resized(frame, resized, notes)
    rounding = int if keeps else round
    side = crop.index(max(crop))
    crop_pct = preparation.share(crop[side], resized[side], rounding)
    frame = preparation.centre(crop_pct) if keeps else preparation.whole(crop_pct)
    other = 1 - side
    if rounding(crop[other] / crop_pct) != resized[other]:
        notes = (f"images are resized to {resized} px for views of {crop}: nearly so",)
    return Resized(frame, crop, notes)


def _kind(processor: Mapping[str, Any]) -> str:
    name = processor.get("image_processor_type") or ""
    return ENDINGS.sub("", name or processor.get("feature_extractor_type", "")).lower()


def _size(size: Any, kind: str) -> dict[str, int]:
    """As a dict of sides or edges; {} where nothing is said."""
    found = processor_fields.sides("size", size)
    if isinstance(size, Mapping):
        if "shortest_edge" in found and "longest_edge" in found:
            del found["longest_edge"]  # seldom reached
    elif found and kind in KEEPING and found["height"] == found["width"]:
        return {"shortest_edge": found["height"]}
    return found


def _sides(name: str, size: Mapping[str, int]) -> tuple[int, int]:
    if not {"height", "width"} <= size.keys():
        raise ValueError(
            f"{FILE}: {name}={dict(size)} is none that can be followed here; say "
            "height and width there"
        )
    return size["height"], size["width"]


def to_processor(
    card: Mapping[str, Any],
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """preprocessor_config.json of an image processor that shows what our evaluation
    does, and what differs there.

    Of those that cut the centre, CLIP's is the one without rules of its own.
    """
    resizes, notes = _written(card["frame"], tuple(card["image_size"]))
    numbers = {name: number for number, name in FILTERS.items()}
    if card["interpolation"] == "area":
        notes += ("transformers has no area filter that is fast: bilinear",)
        numbers |= {"area": numbers["bilinear"]}
    return {
        **resizes,
        "do_resize": True,
        "resample": numbers[card["interpolation"]],
        "do_convert_rgb": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(card["mean"]),
        "image_std": list(card["std"]),
    }, notes


def _written(
    frame: Mapping[str, Any], view: tuple[int, int]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The type of processor and its sizes, and what they do not say."""
    crop = dict(zip(("height", "width"), view, strict=True))
    crop_pct, notes = frame.get("crop_pct", 1.0), ()
    if frame["name"] == "whole":
        return {
            "image_processor_type": "BeitImageProcessor",
            "size": {name: round(side / crop_pct) for name, side in crop.items()},
            "do_center_crop": crop_pct < 1,
            "crop_size": crop,
            "do_reduce_labels": False,
        }, ()
    if frame["name"] == "fit":
        notes = ("DonutImageProcessor resizes an image twice, which blurs it a bit",)
        if frame["align"] != "centre" or any(frame["fill"]):
            notes += ("DonutImageProcessor puts the image in the middle of black",)
        return {
            "image_processor_type": "DonutImageProcessor",
            "size": crop,
            **{"do_thumbnail": True, "do_pad": True, "do_align_long_axis": False},
        }, notes
    if frame["name"] != "centre":
        crop_pct = 1.0
        notes = (f"transformers has no frame {frame['name']!r}: the centre is seen",)
    elif view[0] != view[1]:
        notes = (
            "transformers makes the short side of any image long enough for the view's "
            "long one, where evaluation here makes the view just covered",
        )
    return {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": int(max(view) / crop_pct)},
        "do_center_crop": True,
        "crop_size": crop,
    }, notes
