"""Fields of preprocessor_config.json: obeyed, without effect, or refused by name."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

FILE = "preprocessor_config.json"
EDGES = ("height", "width", "shortest_edge", "longest_edge", "max_height", "max_width")
# What turns on more than a resize, a crop and a scale does -> what that is.
REFUSED = {
    "do_flip_channel_order": "colours in the order blue, green, red",
    "do_grayscale": "grey images",
    "do_align_long_axis": "images turned by their sides",
    "keep_aspect_ratio": "sizes by each image's shape",
    "size_divisor": "sizes by each image's shape",
    "size_divisibility": "sizes by each image's shape",
    "do_image_splitting": "several parts of an image",
    "do_split_image": "several parts of an image",
    "crop_to_patches": "several parts of an image",
    "do_pan_and_scan": "several parts of an image",
    "do_crop_margin": "images without their margins",
}
FLIPPING = {"mobilevit"}  # processors that do_flip_channel_order if they don't say
_KINDS = "image_processor_type feature_extractor_type"
_RESIZE = "do_resize size resample do_center_crop crop_size crop_pct"
_BORDER = "do_pad pad_size do_thumbnail"
_SCALE = "do_rescale rescale_factor rescale_offset offset"
_NORM = "do_normalize image_mean image_std include_top"
OBEYED = {*f"{_KINDS} {_RESIZE} {_BORDER} {_SCALE} {_NORM}".split()}
# What changes no image that a network sees, or is for what keep_aspect_ratio makes.
_LABELS = "do_convert_rgb do_reduce_labels reduce_labels num_labels ensure_multiple_of"
_ARRAYS = "data_format input_data_format return_tensors device disable_grouping"
_ORIGIN = "processor_class _processor_class auto_map transformers_version name_or_path"
_ASIDE = "default_to_square antialias model_input_names num_channels patch_size"
_ASIDE += " image_size image_seq_length _valid_kwargs_names"
_ASIDE += " do_convert_annotations format"
IDLE = {*f"{_LABELS} {_ARRAYS} {_ORIGIN} {_ASIDE}".split()}
IDLE_STARTS = ("codebook_", "input_size_", "mask_", "total_mask", "return_", "do_cod")


class Scale(NamedTuple):
    """Floats `(pixel / 255 - mean) / std`, as of PIXEL_SPACES."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def check(processor: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    """Notes on fields that are not known here.

    Raises:
      ValueError: a field asks for what no evaluation of ours does; names it.
    """
    flips = processor.get("do_flip_channel_order", kind in FLIPPING)
    for name, value in {**processor, "do_flip_channel_order": flips}.items():
        if name in REFUSED and value:
            raise ValueError(
                f"{FILE}: {name}={value!r} means {REFUSED[name]}, which nothing here "
                "does"
            )
    for name in ("do_thumbnail", "do_pad"):
        if kind == "donut" and not flag(processor, name, True):
            raise ValueError(f"{FILE}: {name}=False of Donut: its views have no size")
    pad = sides("pad_size", processor.get("pad_size"))
    lengths = {*pad.values(), *sides("size", processor.get("size")).values()}
    if flag(processor, "do_pad", False) and pad and len(lengths) > 1:
        raise ValueError(f"{FILE}: pad_size={pad} means a border of another size")
    known = OBEYED | IDLE | REFUSED.keys()
    more = [
        name
        for name, value in processor.items()
        if value and name not in known and not name.startswith(IDLE_STARTS)
    ]
    if not more:
        return ()
    return (f"{FILE}: {', '.join(sorted(more))}: not known here, and not followed",)


def flag(processor: Mapping[str, Any], name: str, default: bool) -> bool:
    """A switch; null and nothing are the default."""
    value = processor.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ValueError(f"{FILE}: {name}={value!r} must be true or false")
    return value


def sides(name: str, value: Any) -> dict[str, int]:
    """A size by its EDGES; a number is both height and width. {}: nothing is said."""
    if not value:
        return {}
    size = value
    if isinstance(value, (list, tuple)) and len(value) == 2:
        size = dict(zip(("height", "width"), value, strict=True))
    elif not isinstance(value, Mapping):
        size = dict.fromkeys(("height", "width"), value)
    found = {edge: side for edge, side in size.items() if side}
    if not found.keys() <= set(EDGES) or not all(map(_is_side, found.values())):
        raise ValueError(
            f"{FILE}: {name}={value!r} must be pixels: a number, two, or some of "
            f"{', '.join(EDGES)}"
        )
    return {edge: int(side) for edge, side in found.items()}


def _is_side(side: Any) -> bool:
    return _is_number(side) and side > 0 and side % 1 == 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def three(where: str, value: Any) -> tuple[float, ...]:
    """A number for each colour; one number stands for all."""
    numbers = tuple(value) if isinstance(value, (list, tuple)) else (value,) * 3
    if len(numbers) != 3 or not all(map(_is_number, numbers)):
        raise ValueError(f"{where}={value!r} must be a number, or three")
    return numbers


def scale(processor: Mapping[str, Any]) -> Scale:
    """What rescaling and normalising come to together.

    Pixels in 0..255 are multiplied by rescale_factor, lowered by 1 with rescale_offset,
    and then have image_mean taken off and are divided by image_std; once more so with
    EfficientNet's include_top.
    """
    factor = 1.0
    if flag(processor, "do_rescale", True):
        said = processor.get("rescale_factor")
        factor = 1 / 255 if said is None else said
        if not _is_number(factor) or factor <= 0:
            raise ValueError(f"{FILE}: rescale_factor={factor!r} must be above 0")
    # What BeitImageProcessor has where nothing is said.
    said = {name: processor.get(name) for name in ("image_mean", "image_std")}
    mean, deviation = (
        three(f"{FILE}: {name}", 0.5 if value is None else value)
        for name, value in said.items()
    )
    std = deviation
    if not flag(processor, "do_normalize", True):
        mean, std = (0.0,) * 3, (1.0,) * 3
    if flag(processor, "include_top", False):
        std = tuple(one * other for one, other in zip(std, deviation, strict=True))
    if any(flag(processor, name, False) for name in ("rescale_offset", "offset")):
        mean = tuple(value + 1 for value in mean)
    to_unit = 1 / (255 * factor)
    return Scale(
        *(tuple(value * to_unit for value in values) for values in (mean, std))
    )
