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
    discrete_vae,
    dvae,
    relatives,
    rules,
    vqvae,
    wrappers,
)
from beit_jax.checkpoints.foreign.files import Found
from beit_jax.checkpoints.foreign.rules import NO_HINTS, Array, Hints, Report, pair
from beit_jax.checkpoints.steps import Restored
from beit_jax.models import adapt

FAMILIES = {"beit": beit, "dvae": dvae, "discrete_vae": discrete_vae, "vqvae": vqvae}
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
        return adapted(_own(found), hints)
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
    saved, more = _resized(saved, hints.image_size)
    notes = (*found.texts.get("notes", ()), *unwrapped, *understood.notes, *more)
    return saved, report._replace(notes=notes)


def _unknown(state: Mapping[str, Array]) -> str:
    """What a state dict is, which is of no family."""
    none = f"is of no network known here ({', '.join(FAMILIES)})"
    if what := relatives.looks_like(state):
        return f"{none}; it looks like {what}"
    return f"{none}; it has {', '.join(sorted(state)[:8]) or 'nothing'}, …"


def adapted(saved: Restored, hints: Hints) -> tuple[Restored, Report]:
    """One of ours, for images of another size if the hints say so.

    Raises:
      ValueError: hints about what it knows.
    """
    if hints.heads or hints.pixels:
        raise ValueError(f"{saved.path} knows its heads and pixels: no such hints")
    leaves = names.flatten({"params": saved.params, **saved.model_state})
    saved, notes = _resized(saved, hints.image_size)
    return saved, Report(sorted(leaves), [], [], notes)


def _resized(
    saved: Restored, asked: int | tuple[int, int] | None
) -> tuple[Restored, tuple[str, ...]]:
    """For images of the size asked for: an encoder has its positions resized."""
    model, encoder = saved.config["model"], saved.params.get("encoder", {})
    old = pair(model["image_size"])
    new = old if asked is None else pair(asked)
    if old == new:
        return saved, ()
    if min(new) < 1:
        raise ValueError(f"image_size={asked} must be pixels, >= 1")
    size = {"image_size": new[0] if new[0] == new[1] else new}
    saved = saved._replace(config={**saved.config, "model": {**model, **size}})
    if "image_size" in saved.card:
        saved = saved._replace(card={**saved.card, "image_size": list(new)})
    if "cls_token" not in encoder:
        return saved, ()
    patch = encoder["patch_embed"]["proj"]["kernel"].shape[0]
    if any(side % patch for side in new):
        raise ValueError(f"image_size={asked} must be a multiple of patch_size={patch}")
    if model.get("abs_pos_embed") == "sincos":
        raise ValueError(f"{saved.path} has sin-cos positions, for {old} px only")
    grids = [(side[0] // patch, side[1] // patch) for side in (old, new)]
    encoder = adapt.resize_positions(encoder, *grids)
    texts = ("x".join(map(str, side)) for side in (old, new))
    note = "positions of {} px resized to those of {} px".format(*texts)
    return saved._replace(params={**saved.params, "encoder": encoder}), (note,)


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
