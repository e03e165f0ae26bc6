"""The names behind a recipe's file, FILE:NAME,NAME, and what each changes; "tiny"."""

from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from beit_jax.lookup import nearest


def is_tiny(arg: str, known: Collection[str] = ()) -> bool:
    """Whether a recipe's argument, FILE:NAME,NAME, asks for seconds instead of hours.

    Args:
      known: names that may stand there besides "tiny".

    Raises:
      ValueError: another name.
    """
    names = set(filter(None, arg.split(",")))
    if unknown := names - {"tiny", *known}:
        raise ValueError(
            f"recipe argument {min(unknown)!r} is unknown; it can be "
            + ", ".join(sorted({"tiny", *known}))
            + nearest(min(unknown), ["tiny", *known])
        )
    return "tiny" in names


def choose(
    config: ConfigDict, arg: str, variants: Mapping[str, Mapping[str, Any]]
) -> bool:
    """Changes `config` in place by the variants that a recipe's argument names.

    Args:
      variants: name -> changes, as `change` takes them. "a+b" is what changes when a
        and b are both named; it wins over either.

    Returns:
      Whether "tiny" is named too; to cut the recipe down is up to it.

    Raises:
      ValueError: an unknown name, or two that want a setting to be different things.
    """
    tiny = is_tiny(arg, [name for name in variants if "+" not in name])
    asked = set(arg.split(","))
    rows = [name for name in variants if asked.issuperset(name.split("+"))]
    decides: dict[str, str] = {}  # setting -> the row that it follows
    for row in sorted(rows, key=lambda name: -name.count("+")):
        for key, value in variants[row].items():
            other = decides.setdefault(key, row)
            have = variants[other][key]
            if value != have and other.count("+") == row.count("+"):
                raise ValueError(
                    f"recipe argument {arg!r}: {other!r} wants "
                    f"{key.replace('__', '.')}={have!r}, {row!r} {value!r}; name one"
                )
    change(config, **{key: variants[row][key] for key, row in decides.items()})
    return tiny


def change(config: ConfigDict, **changes: Any) -> ConfigDict:
    """Sets keys of `config` in place, each given as `section__key=value`."""
    for key, value in changes.items():
        *sections, name = key.split("__")
        section = config
        for part in sections:
            section = section[part]
        section[name] = value
    return config


# As changes: a ViT of 16 patches, whatever the recipe's encoder is.
SMALL_ENCODER = {
    "model__image_size": 32,
    "model__patch_size": 8,
    "model__variant": "tiny",
    "model__depth": 2,
}
# And a segmenter on it.
SMALL_SEGMENTER = SMALL_ENCODER | {
    "init_from": "",
    "init_fresh": "",
    "task__classes": 4,
    "task__head__channels": 8,
    "task__taps": (0, 0, 1, 1),
    "task__inference__room": (32, 32),
    "task__inference__stride": (16, 16),
    "task__inference__short": 32,
    "task__inference__long": 64,
    "data__frame__long": 32,
    "data__frame__short": 32,
}


def smaller(config: ConfigDict, **changes: Any) -> ConfigDict:
    """The recipe cut down to seconds: a few steps, and `changes`."""
    short = {
        "steps": 6,
        "data__batch_size": 8,
        "optim__warmup_steps": 2,
        "log__every_steps": 2,
        "eval__pictures": 2,
        "checkpoint__every_steps": 3,
    }
    return change(config, **short | changes)


def synthetic(config: ConfigDict) -> ConfigDict:
    """The recipe on drawn images, so that it runs where its data set is not."""
    size = config.model.image_size
    drawn = {
        "name": "synthetic",
        "num_examples": 32,
        "num_classes": config.task.get("classes", 4),
        "size": size if isinstance(size, int) else max(size),
    }
    config.data.source = config.data.eval_source = ConfigDict(drawn)
    for section in config.evals.values():
        section.source = ConfigDict(drawn)
    return config
