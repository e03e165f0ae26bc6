"""The card of a checkpoint: what an image must go through before it sees the model.

Every checkpoint has one, so that nobody needs the recipe to use its weights, and nobody
measures them on images that look otherwise without being told. Images of another size
are told of and not refused: an encoder's positions are resized to them. Keys:

  image_size       [height, width] of the model's input
  mean, std        of the pixel space, in [0, 1], channel by channel
  interpolation, crop_pct, apply_exif   as in `data`: how evaluation cuts an image
  class_names      in the order of the logits; [] where they are not known
  pool             what of an image the head sees; None where there is no such head
  taps, norm_eps   of the encoder; [] and None where there is none
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from beit_jax import config as config_lib
from beit_jax import tasks
from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.weights import Restored

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
        "image_size": list(task.example_spec["image"].shape[:2]),
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
        "interpolation": data.augment.interpolation,
        "crop_pct": data.augment.crop_pct,
        "apply_exif": data.apply_exif,
    }


def of_checkpoint(saved: Restored) -> Card:
    """Its card; made from its config where it was written before there were cards."""
    if saved.card:
        return saved.card
    config = config_lib.from_dict(saved.config)
    return of(config, tasks.build(config), class_names=())


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


def check_data(saved: Restored, data: ConfigDict) -> None:
    """Holds a recipe's `data` against the card of a checkpoint with an encoder.

    Raises:
      ValueError: images would look otherwise.
    """
    card, now = of_checkpoint(saved), _of_data(data)
    if not card["pool"]:
        # Pre-training sees random parts of images; how much of them an evaluation
        # should see, only a classifier knows.
        del now["crop_pct"]
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
