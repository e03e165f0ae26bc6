"""Checkpoints of other projects as ours: which family they are of, and their arrays.

A family is a module with
  recognise(state) -> the dialect that a state dict is written in, or ""
  understand(found, dialect, hints) -> rules.Understood
  DIALECTS, and foreign(saved, dialect, target) -> rules.Foreign, for what it can write
"""

import json
from collections.abc import Iterable, Mapping

from beit_jax import config as config_lib
from beit_jax.checkpoints import names
from beit_jax.checkpoints.foreign import (
    beit,
    clip,
    discrete_vae,
    dvae,
    plain_vit,
    relatives,
    rules,
    vqkd,
    vqvae,
    wrappers,
)
from beit_jax.checkpoints.foreign.files import Found
from beit_jax.checkpoints.foreign.rules import NO_HINTS, Array, Hints, Report
from beit_jax.checkpoints.steps import Restored

FAMILIES = {"beit": beit, "vit": plain_vit, "dvae": dvae, "clip": clip}
FAMILIES |= {"discrete_vae": discrete_vae, "vqvae": vqvae, "vqkd": vqkd}
OWN = "beit_jax"  # what the metadata of a file with our own names have
OWN_PARTS = ("config", "card", "position")


def restore(
    found: Found, hints: Hints = NO_HINTS, allow: Iterable[str] = ()
) -> tuple[Restored, Report]:
    """Weights, config and card of a foreign checkpoint, or of one file of ours.

    Args:
      allow: patterns of names to leave behind.

    Raises:
      ValueError: it is of no family, or its names or shapes are not those of one.
    """
    if OWN in found.texts.get("metadata", {}):
        return ours(_own(found), hints)
    state, unwrapped = wrappers.unwrapped(found.state)
    found = found._replace(state=state)
    for family in FAMILIES.values():
        if dialect := family.recognise(found.state):
            break
    else:
        raise ValueError(f"{found.path} {_unknown(found.state)}")
    understood = family.understand(found, dialect, hints)
    try:
        tree, report = rules.read(
            understood.rows, found.state, understood.ignorable, allow
        )
    except ValueError as error:
        raise type(error)(f"{found.path}: {error}") from error
    understood.complete(tree)
    params = tree.pop("params")
    saved = Restored(
        path=found.path,
        step=0,
        params=params,
        model_state=tree,
        config=config_lib.new(**understood.sections).to_dict(),
        position={"step": 0},
        card=understood.card,
    )
    notes = (*found.texts.get("notes", ()), *unwrapped, *understood.notes)
    return saved, report._replace(notes=notes)


def _unknown(state: Mapping[str, Array]) -> str:
    """What a state dict is, which is of no family."""
    none = f"is of no network known here ({', '.join(FAMILIES)})"
    if what := relatives.looks_like(state):
        return f"{none}; it looks like {what}"
    return f"{none}; it has {', '.join(sorted(state)[:8]) or 'nothing'}, …"


def ours(saved: Restored, hints: Hints) -> tuple[Restored, Report]:
    """One of ours, and all its names.

    Raises:
      ValueError: hints about what it knows.
    """
    if hints.heads or hints.pixels:
        raise ValueError(f"{saved.path} knows its heads and pixels: no such hints")
    leaves = names.flatten({"params": saved.params, **saved.model_state})
    return saved, Report(sorted(leaves), [], [], ())


def _own(found: Found) -> Restored:
    try:
        said = json.loads(found.texts["metadata"][OWN])
        parts = {name: said[name] for name in OWN_PARTS}
        parts["config"] = config_lib.upgraded(parts["config"])
        step = int(parts["position"]["step"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{found.path}: its metadata {OWN!r} lack what a file of ours says of "
            f"itself ({error!r})"
        ) from error
    try:
        tree = names.nest(found.state)
    except ValueError as error:
        raise ValueError(f"{found.path} has {error}") from error
    if not isinstance(params := tree.pop("params", None), dict):
        raise ValueError(f"{found.path} has no parameters")
    return Restored(
        path=found.path, step=step, params=params, model_state=tree, **parts
    )
