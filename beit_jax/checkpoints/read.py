"""One way in for every checkpoint, whoever wrote it.

A checkpoint is named by

  a run's work directory, its checkpoints/, or one step in it: ours,
  a file of weights, or a folder with one: another project's, see families.py,
  any of these in a bucket, "gs://bucket/run": copied to the cache folder,
  "hf:owner/name": a repository on the Hugging Face hub. One that was downloaded before
  may go without "hf:", where there is no such path nor a folder owner/.
"""

import pathlib
import re
from collections.abc import Iterable
from typing import Any

from beit_jax import stores
from beit_jax.checkpoints import steps
from beit_jax.checkpoints.foreign import families, files, hub
from beit_jax.checkpoints.foreign.rules import NO_HINTS, Hints, Report, Undecided
from beit_jax.checkpoints.steps import Restored
from beit_jax.models import lora

SUFFIXES = (*files.SINGLE, ".pkl")
# What commits a step, in a work directory, its checkpoints/ or the step.
_COMMITS = re.compile(rf"((?:checkpoints/)?(?:(\d+)/)?){re.escape(steps.COMMITTED)}")


def locate(path: str | pathlib.Path) -> pathlib.Path:
    """The step of a run, or the file or folder of another project's weights.

    What this gives stays the same checkpoint while a run trains on.

    Raises:
      ValueError: there is no checkpoint.
    """
    if name := hub.named(str(path)):
        return hub.download(name)
    if stores.is_remote(path):
        path = _copied(str(path))
    here = pathlib.Path(path).expanduser()
    if here.is_dir():
        return _in_folder(here.absolute())
    if here.exists():
        return here.absolute()
    bare = hub.is_name(str(path)) and not here.parent.exists()
    if bare and (folder := hub.downloaded(str(path))):
        return folder
    raise ValueError(
        f"there is no checkpoint {str(path)!r}: name a run's work directory or one "
        f"step in it, a file ({', '.join(SUFFIXES)}), a folder with one, or a "
        f"repository on the Hugging Face hub, {hub.PREFIX}owner/name"
    )


def _copied(url: str) -> pathlib.Path:
    """Of a run in a bucket its newest committed step, else the file or its folder's."""
    found = stores.Store(url).versions()
    if "" in found:
        return stores.copied(url)
    whole = sorted(filter(None, map(_COMMITS.fullmatch, found)), key=_number)
    start = whole[-1][1] if whole else ""
    names = {
        name: version
        for name, version in found.items()
        if (name.startswith(start) if whole else "/" not in name)
    }
    if not names:
        raise ValueError(f"there is no checkpoint {url!r}: nothing is there")
    return stores.copied(url, names)


def _number(commits: re.Match) -> int:
    return int(commits[2] or 0)


def _in_folder(folder: pathlib.Path) -> pathlib.Path:
    try:
        return steps.find_step(folder)
    except ValueError as error:
        if any(file.suffix in SUFFIXES for file in folder.iterdir()):
            return folder
        raise ValueError(
            f"{error}. Nor are there weights of another project: a file of "
            f"{', '.join(SUFFIXES)}"
        ) from error


def step_of(location: pathlib.Path) -> int:
    """The optimizer steps of what `locate` gave; 0 if another project's."""
    return int(location.name) if is_ours(location) else 0


def is_ours(location: pathlib.Path) -> bool:
    """Whether what `locate` gave is a step of a run."""
    return steps.is_committed(location)


def read_config(path: str | pathlib.Path) -> dict[str, Any]:
    """The config that a checkpoint carries, or that its arrays' shapes tell.

    Raises:
      ValueError: there is no checkpoint, or it cannot be read.
    """
    location = locate(path)
    if is_ours(location):
        return steps.read_config(location)
    return restore(location).config


def read(
    path: str | pathlib.Path, hints: Hints = NO_HINTS, allow: Iterable[str] = ()
) -> tuple[Restored, Report]:
    """A checkpoint, and what became of its names.

    Args:
      hints, allow: see families.restore; one of ours needs none.

    Raises:
      ValueError: there is no checkpoint, or it cannot be read.
    """
    location = locate(path)
    if is_ours(location):
        saved = steps.restore_params(location)
        params, config = lora.added(saved.params, saved.config)
        return families.ours(saved._replace(params=params, config=config), hints)
    return families.restore(files.read(location), hints, allow)


def restore(path: str | pathlib.Path, hints: Hints = NO_HINTS) -> Restored:
    """As `read`; tells on stderr what had to be assumed.

    Raises:
      ValueError: there is no checkpoint, or it cannot be read.
    """
    try:
        saved, report = read(path, hints)
    except Undecided as error:
        raise ValueError(
            f"{error}. These are flags of `python -m beit_jax.convert {path} NEW`: "
            "convert it first"
        ) from error
    for note in report.notes:
        steps.tell(f"note: {saved.path}: {note}")
    return saved
