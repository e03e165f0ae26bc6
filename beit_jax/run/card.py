"""The card of a checkpoint: what an image must go through before it sees the model.

Every checkpoint has one, so that nobody needs the recipe to use its weights, and nobody
measures them on images that look otherwise without being told. Images of another size
are told of and not refused: an encoder's positions are resized to them. Keys:

  image_size       [height, width] of the model's input
  mean, std        of the pixel space, in [0, 1], channel by channel
  frame            how evaluation cuts an image: a section as `data.eval_frame`, with
                   all its settings
  interpolation, apply_exif   as in `data`
  class_names      in the order of the logits; [] where they are not known
  pool             what of an image the head sees; None where there is no such head
  taps, norm_eps   of the encoder; [] and None where there is none
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from beit_jax import config as config_lib
from beit_jax import tasks
from beit_jax.checkpoints.steps import Restored
from beit_jax.data import frames
from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.models.vit import Encoder

Card = Mapping[str, Any]


def of(config: ConfigDict, task, class_names: Sequence[str]) -> dict[str, Any]:
    """The card of a run, as plain data.

    Args:
      task: what `config` builds.
      class_names: of its data; ignored unless the task uses labels.
    """
    space = PIXEL_SPACES[config.model.get("pixels", "half")]
    encoder = task.encoder
    return {
        "image_size": list(task.train_spec["image"].shape[:2]),
        "mean": list(space.mean),
        "std": list(space.std),
        **_of_data(config.data),
        "class_names": list(class_names) if task.classes else [],
        "pool": task.pool,
        "taps": list(encoder.taps) if encoder else [],
        "norm_eps": encoder.norm_eps if encoder else None,
    }


def _of_data(data: ConfigDict) -> dict[str, Any]:
    return {
        "frame": frames.complete(data.eval_frame),
        "interpolation": data.augment.interpolation,
        "apply_exif": data.apply_exif,
    }


def of_checkpoint(saved: Restored) -> Card:
    """Its card; what that does not say is made from its config.

    Checkpoints from before there were cards say nothing, other projects' only the names
    of the classes. Cards from before there were frames have a crop_pct, of the centre.
    """
    if "image_size" in saved.card:
        card = dict(saved.card)
        if "crop_pct" in card:
            card["frame"] = {"name": "centre", "crop_pct": card.pop("crop_pct")}
        return card
    config = config_lib.from_dict(saved.config)
    return of(config, tasks.build(config), class_names=()) | saved.card


def class_names(saved: Restored, classes: int, given: Sequence[str]) -> tuple[str, ...]:
    """The names of a checkpoint's classes: those that it knows or, without, `given`.

    Raises:
      ValueError: it knows them and they are given too, or not all of them are given.
    """
    known = of_checkpoint(saved)["class_names"]
    if known and given:
        raise ValueError(
            f"{saved.path} knows the names of its classes ({', '.join(known[:5])}, …): "
            "leave out --class_names"
        )
    names = known or given
    if len(names) != classes:
        raise ValueError(
            f"{saved.path} does not know the names of its classes; give all {classes} "
            f"by --class_names, in their order (given: {len(given)})"
        )
    return tuple(names)


def check(saved: Card, now: Card, where: str) -> list[str]:
    """Holds the card of a checkpoint against that of a recipe.

    Args:
      where: the checkpoint, for messages.

    Returns:
      Sentences about what may be so, but should be known: another size of images,
      classes that the checkpoint cannot name.

    Raises:
      ValueError: something else differs.
    """
    if wrong := _differences(saved, now):
        raise ValueError(
            f"{where} was trained with {wrong}. Without --config it is "
            "measured as it was trained; with --override_card as the recipe says"
        )
    if not saved["class_names"]:
        _check_order(now["class_names"], where)
    notes = []
    if saved["image_size"] != now["image_size"]:
        theirs, ours = ("x".join(map(str, card["image_size"])) for card in (saved, now))
        notes.append(f"{where} was trained on {theirs} px and now sees {ours} px")
    if now["class_names"] and not saved["class_names"]:
        notes.append(
            f"{where} does not know the names of its classes; it is taken to have "
            f"those of the data, in their order: {_brief(now['class_names'])}"
        )
    return notes


def _check_order(names: Sequence[str], where: str) -> None:
    """Raises ValueError for names whose order is likely not that of the logits."""
    if not all(name.isdecimal() for name in names):
        return
    if list(names) != (counted := sorted(names, key=int)):
        raise ValueError(
            f"{where} does not know the names of its classes. Those of the data are "
            f"numbers in the order of texts, {_brief(list(names))}, where the "
            f"checkpoint's are more likely {_brief(counted)}: give them by "
            "--class_names in the order of its logits, or let them be by "
            "--override_card"
        )


def doubts(saved: Restored, model: Mapping[str, Any]) -> list[str]:
    """What a run should know that starts a `model` from these weights."""
    name, mine = saved.config["model"].get("pixels", "half"), model["pixels"]
    theirs, ours = PIXEL_SPACES[name], PIXEL_SPACES[mine]
    said = []
    if theirs != ours:
        said.append(
            f"{saved.path} was trained on pixels of mean {theirs.mean} and deviation "
            f"{theirs.std}, this run shows them with {ours.mean} and {ours.std}: set "
            f"model.pixels={name!r}, unless that is wanted"
        )
    eps = saved.config["model"].get("norm_eps", Encoder.norm_eps)
    if eps != (own := model.get("norm_eps", Encoder.norm_eps)):
        said.append(
            f"{saved.path} was trained with norm_eps={eps}, this run has {own}: set "
            f"model.norm_eps={eps}, unless that is wanted"
        )
    return said


def doubts_of_head(saved: Restored, class_names: Sequence[str]) -> list[str]:
    """What a run should know that goes on with a head for its own classes."""
    known = of_checkpoint(saved)["class_names"]
    if not known or list(class_names) == known:
        return []
    return [
        f"the head of {saved.path} tells {_brief(known)} in this order, the data have "
        f"{_brief(list(class_names))}: set init_fresh='head', or class_names of the "
        "source, unless that is wanted"
    ]


def check_data(saved: Restored, data: ConfigDict) -> None:
    """Holds a recipe's `data` against the card of a checkpoint with an encoder.

    Raises:
      ValueError: images would look otherwise.
    """
    card, now = of_checkpoint(saved), _of_data(data)
    if not card["pool"]:
        # Pre-training sees random parts of images; how much of them an evaluation
        # should see, only a classifier knows.
        del now["frame"]
    if wrong := _differences(card, now):
        raise ValueError(
            f"{saved.path} was trained with {wrong}. Set data of the recipe so, or "
            "leave out --config"
        )


def _differences(saved: Card, now: Card) -> str:
    return "; ".join(
        f"{name}={_brief(saved[name])}, the recipe has {_brief(have)}"
        for name, have in now.items()
        if name != "image_size"
        and have != saved[name]
        and not _unknown(name, saved[name], now)
    )


def _unknown(name: str, have: Any, now: Card) -> bool:
    return name == "class_names" and not (have and now[name])


def _brief(value: Any) -> str:
    return f"[{', '.join(map(str, value[:4]))}, …]" if _is_long(value) else repr(value)


def _is_long(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 4
