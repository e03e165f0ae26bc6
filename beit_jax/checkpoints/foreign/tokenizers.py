"""What the families of tokenizers share."""

from collections.abc import Iterable, Mapping
from typing import Any

from beit_jax.checkpoints.foreign.files import Found
from beit_jax.checkpoints.foreign.rules import Hints, Row, Undecided, Understood, pair
from beit_jax.checkpoints.steps import Restored


def shape(found: Found, name: str, axes: int) -> tuple[int, ...]:
    """An array's; raises ValueError if it is not there with so many axes."""
    have = found.state[name].shape if name in found.state else ()
    if len(have) != axes:
        raise ValueError(f"{found.path} lacks {name}, an array of {axes} axes")
    return have


def understood(
    rows: list[Row], model: Mapping[str, Any], hints: Hints, **more: Any
) -> Understood:
    """What a family's `understand` returns.

    Args:
      model: the section of the config, with the image_size and the pixels that hold
        unless the user says others.
      more: of `Understood`.

    Raises:
      ValueError: the user's image_size cannot be a tokenizer's.
    """
    said = {"image_size": hints.image_size, "pixels": hints.pixels}
    said = {name: value for name, value in said.items() if value}
    guessed = [f"{k}={model[k]!r}" for k in ("image_size", "pixels") if k not in said]
    notes = tuple(more.pop("notes", ()))
    if guessed:
        why = "as published; the weights do not tell: --image_size, --pixels"
        notes += (f"{' and '.join(guessed)}, {why}",)
    model = {**model, **said}
    size, patch = model["image_size"], model["patch_size"]
    height, width = pair(size)
    if height != width or height % patch:
        raise Undecided(f"--image_size={size} must be one side, a multiple of {patch}")
    sections = {
        "epochs": 0.0,
        "task": {"name": "tokenizer"},
        "model": {**model, "image_size": height},
    }
    return Understood(rows, sections, notes=notes, **more)


def settings(saved: Restored, network: type, names: Iterable[str]) -> dict[str, Any]:
    """Those of a tokenizer's config, or the defaults of its class."""
    model = saved.config["model"]
    return {name: model.get(name, getattr(network, name)) for name in names}


def pixel_notes(saved: Restored, usual: str) -> tuple[str, ...]:
    """A sentence if readers of the file will take its pixels for others."""
    pixels = saved.config["model"].get("pixels", "half")
    told = f"the file does not tell that its pixels are {pixels!r}, not {usual!r}"
    return () if pixels == usual else (told,)
