"""Tells whether the files of a step are what was saved: sizes and SHA-256.

  STEP/state/…, config/…, …   what was saved
  STEP/hashes.json            size and SHA-256 of each of these files, by path
  STEP/commit_success.txt     the SHA-256 of hashes.json

The last one is written last, and a step without it does not count: a kill leaves either
no hashes or the right ones. In steps from before there were hashes it holds a sentence
of Orbax's; nothing can be said of their files.
"""

import hashlib
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

HASHES = "hashes.json"
COMMITTED = "commit_success.txt"  # is in the directory of every whole step


def write(step: pathlib.Path) -> None:
    """Writes the hashes of all files below `step`, and makes it count."""
    found = {name: _measured(step / name) for name in sorted(_names(step))}
    _write(step / HASHES, json.dumps(found, indent=1) + "\n")
    commit(step)


def commit(step: pathlib.Path) -> None:
    """Makes a step count whose hashes are written."""
    _write(step / COMMITTED, _digest(step / HASHES))


def have(step: pathlib.Path) -> bool:
    """Whether a step was saved with hashes, even if they are gone by now."""
    seal = step / COMMITTED
    return (step / HASHES).exists() or (
        seal.exists() and bool(re.fullmatch(b"[0-9a-f]{64}", seal.read_bytes()))
    )


def check(step: pathlib.Path, arrays: bool = True) -> None:
    """Raises ValueError if the files of a step are not those that were saved."""
    if wrong := fault(step, arrays):
        found = {path.parent.name for path in step.parent.glob(f"*/{COMMITTED}")}
        others = sorted(filter(str.isdigit, found - {step.name}), key=int)
        beside = f", or name one of those beside it: {', '.join(others)}"
        raise ValueError(
            f"checkpoint {step} is damaged: {wrong}. Bring it back from a copy"
            + (beside if others else "")
        )


def fault(step: pathlib.Path, arrays: bool = True) -> str:
    """What is wrong with the first bad file of a step; "" if nothing is known to be.

    Args:
      arrays: without them a glance, at config, position, card and metrics.
    """
    if not have(step):
        return ""
    try:
        wanted = json.loads(_sealed(step))
        for name, saved in wanted.items():
            if arrays or not name.startswith("state/"):
                _compare(step / name, name, saved)
    except PermissionError as error:  # no damage: nothing may be set aside for it
        raise ValueError(
            f"{error.filename} may not be read by this user; checkpoint {step} is used "
            "as soon as it may"
        ) from error
    except OSError as error:
        return f"{error.filename or step}: {error.strerror or error}"
    except ValueError as error:
        return str(error)
    # A note that somebody puts beside the folders is none of our business.
    surplus = [name for name in _names(step) - wanted.keys() if "/" in name]
    return f"{min(surplus)} was not saved with it" if surplus else ""


def _sealed(step: pathlib.Path) -> bytes:
    """The text of HASHES; where COMMITTED is gone, nothing speaks against it."""
    if not (step / HASHES).exists():
        raise ValueError(f"{HASHES} is missing")
    text, seal = (step / HASHES).read_bytes(), step / COMMITTED
    if seal.exists() and seal.read_bytes() != hashlib.sha256(text).hexdigest().encode():
        raise ValueError(f"{HASHES} and {COMMITTED} do not belong together")
    return text


def _compare(path: pathlib.Path, name: str, saved: Mapping[str, Any]) -> None:
    if not path.exists():
        raise ValueError(f"{name} is missing")
    if (size := path.stat().st_size) != saved["bytes"]:
        raise ValueError(
            f"{name} has {size} bytes, and had {saved['bytes']} when saved"
        )
    if (digest := _digest(path)) != saved["sha256"]:
        raise ValueError(
            f"{name} has the SHA-256 {digest[:12]}…, and had {saved['sha256'][:12]}… "
            "when saved"
        )


def _names(step: pathlib.Path) -> set[str]:
    """Paths of the files below `step`, but for hidden ones and those of this module."""
    paths = (path.relative_to(step) for path in step.rglob("*") if path.is_file())
    names = {path.as_posix() for path in paths if not path.name.startswith(".")}
    return names - {HASHES, COMMITTED}


def _measured(path: pathlib.Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": _digest(path)}


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: pathlib.Path, text: str) -> None:
    """Whole, or not at all."""
    new = path.with_name(f".{path.name}")
    new.write_text(text)
    os.replace(new, path)
