"""The names behind a recipe's file, FILE:NAME,NAME, and what each changes."""

from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict


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
