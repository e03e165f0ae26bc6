"""Brings a saved config to today's form: keys have moved, and JSON has no tuples."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Gone(NamedTuple):
    """Why there is nothing any more like a key of an earlier version."""

    reason: str


# What keys of earlier versions are called now; a row is never taken out.
MOVED: dict[str, str | Gone] = {
    "data.augment.crop": "data.frame.name",
    "data.augment.min_scale": "data.frame.min_scale",
    "data.augment.max_scale": "data.frame.max_scale",
    "data.augment.min_ratio": "data.frame.min_ratio",
    "data.augment.max_ratio": "data.frame.max_ratio",
    "data.augment.pad": "data.frame.pad",
    "data.augment.crop_pct": "data.eval_frame.crop_pct",
}
# All settings of a crop were in every config; those that it has kept as a frame.
CROPS = {
    "random_resized": ("min_scale", "max_scale", "min_ratio", "max_ratio"),
    "square": (),
    "pad": ("pad",),
}


def moved(path: str) -> str:
    """A sentence on a key of an earlier version, or nothing."""
    new = MOVED.get(path, "")
    if isinstance(new, Gone):
        return f"there is no {path} any more: {new.reason}"
    return new and f"{path} is now {new}"


def upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    """A config that any earlier version saved, by today's keys.

    Args:
      values: plain data, as a checkpoint or config.json has it; is left as it is.
    """
    made = _copied(values)
    crop = made.get("data", {}).get("augment", {}).get("crop")
    for old, new in MOVED.items():
        *sections, key = old.split(".")
        section = made
        for part in sections:
            section = section.get(part, {})
        if key in section:
            value = section.pop(key)
            if not isinstance(new, Gone):
                _put(made, new, value)
    mask = made.get("data", {}).get("mask", {})
    if (
        "ratio" in mask
    ):  # beside it, defaults that were written down said another number
        mask.pop("max_patches", None)
    if crop is not None:
        frame = made["data"]["frame"]
        kept = ("name", *CROPS.get(crop, frame))
        made["data"]["frame"] = {k: v for k, v in frame.items() if k in kept}
    return made


def tuples(value: Any) -> Any:
    """Nested mappings as dicts, in which lists have become tuples."""
    if isinstance(value, Mapping):
        return {key: tuples(inner) for key, inner in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def _copied(values: Any) -> Any:
    """Nested mappings as dicts."""
    if not isinstance(values, Mapping):
        return values
    return {key: _copied(value) for key, value in values.items()}


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    *sections, key = path.split(".")
    for part in sections:
        values = values.setdefault(part, {})
    values[key] = value
