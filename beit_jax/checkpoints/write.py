"""Writes a checkpoint for other tools, or as one file of ours."""

import json
import pathlib
import tempfile
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from beit_jax.checkpoints.foreign import families, files, rules
from beit_jax.checkpoints.foreign.files import TORCH
from beit_jax.checkpoints.foreign.rules import Report
from beit_jax.checkpoints.names import flatten
from beit_jax.checkpoints.steps import Restored, save_params
from beit_jax.stores import on_disk

OURS = ("orbax", "safetensors")
FORMATS = (*OURS, "official", "timm", "hf")


def choose(target: str | pathlib.Path, to: str) -> str:
    """The format asked for, or the one that a target's name tells.

    Raises:
      ValueError: no such format, or a target that cannot be of it, or exists.
    """
    if not to:
        to = {"": "orbax", ".safetensors": "safetensors"}.get(
            pathlib.Path(target).suffix, ""
        )
    if to not in FORMATS:
        raise ValueError(
            f"what is {target} to be? --to {'|'.join(FORMATS)}"
            + (f", not {to!r}" if to else "")
        )
    suffixes = {"safetensors": (".safetensors",)}
    suffixes["timm"] = ("", ".safetensors", *TORCH)  # without: a folder
    fits = suffixes.get(to, files.SINGLE if to == "official" else ())
    if fits and pathlib.Path(target).suffix not in fits:
        raise ValueError(
            f"{target} as {to} must end in one of {', '.join(filter(None, fits))}"
            + ("" if fits[0] else ", or be a folder, without a suffix")
        )
    if to != "orbax" and on_disk(target, "the target").exists():
        raise ValueError(f"{target} exists; name a new one")
    return to


def write(
    saved: Restored, target: str | pathlib.Path, to: str, allow: Iterable[str] = ()
) -> Report:
    """Writes weights with all that is known of them.

    Args:
      saved: with its whole card, see card.of_checkpoint.
      target: a folder for "orbax" and "hf", and without a suffix for "timm"; a file for
        all others, by whose suffix it is .safetensors, .npz or (with PyTorch) .pth;
        nothing is written over.
      to: one of FORMATS.
      allow: patterns of our parameters to leave behind.

    Raises:
      ValueError: the target exists, or the format has no place for a parameter.
    """
    choose(target, to)
    target = on_disk(target, "the target").absolute()
    tree = {"params": saved.params, **saved.model_state}
    if to == "orbax":
        config = ConfigDict(saved.config)
        save_params(target, saved.params, saved.model_state, config, saved.card)
        return Report(sorted(flatten(tree)), [], [])
    flat = {name: np.asarray(leaf) for name, leaf in flatten(tree).items()}
    if to == "safetensors":
        own = {name: getattr(saved, name) for name in families.OWN_PARTS}
        _write(target, flat, {families.OWN: json.dumps(own)})
        return Report(sorted(flat), [], [])
    family, name = _family(saved)
    if to not in family.DIALECTS:
        raise ValueError(
            f"a {name} is written as {', '.join((*family.DIALECTS, *OURS))}, not as "
            f"{to!r}"
        )
    made = family.foreign(saved, to, target)
    state, report = rules.write(made.rows, flat, made.ignorable, allow)
    state |= made.extra
    _write(target, state, {"format": "pt"} if made.texts else {}, made.texts)
    return report._replace(notes=made.notes)


def _write(
    target: pathlib.Path,
    state: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
    texts: Mapping[str, Any] = {},
) -> None:
    """A file or, with texts, a folder: whole, or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".convert_") as scratch:
        made = pathlib.Path(scratch, target.name)
        if texts:
            made.mkdir()
            for file, text in texts.items():
                written = json.dumps(text, indent=2) + "\n"
                (made / file).write_text(written, encoding="utf-8")
            files.write(made / "model.safetensors", state, metadata)
        else:
            files.write(made, state, metadata)
        made.rename(target)


def _family(saved: Restored) -> tuple[ModuleType, str]:
    name = saved.config["model"].get("name", "vit")
    if name == "vit":
        head = saved.config["task"].get("head") or {}
        there = "cls_token" in saved.params.get("encoder", {})
        name = ("vit" if head.get("name") == "decoder" else "beit") if there else ""
    if name not in families.FAMILIES:
        raise ValueError(
            f"{saved.path} is of task {saved.config['task']['name']!r}, which has no "
            f"network of its own; it is written as {' or '.join(OURS)} only"
        )
    return families.FAMILIES[name], name
