"""A user's own modules that a config names: imported when asked for, and found again.

A recipe is a program, and so are the modules that it names: they are imported, and it
is noted below `cache.folder` from where. A config that a checkpoint carries is data:
of the modules it names, those are imported that were noted here, or that the program
has imported itself; no others, for whoever made the checkpoint chose the names.
"""

import importlib
import importlib.util
import json
import os
import pathlib
import sys
from collections.abc import Sequence

from beit_jax import cache
from beit_jax.text import UTF8


def use(names: Sequence[str]) -> None:
    """Imports what a recipe names, and notes it.

    Raises:
      ValueError: there is no such module.
    """
    for name in names:
        _check(name)
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):
                raise  # of what the module imports itself
            raise ValueError(
                f"modules: there is no {error.name!r} on Python's path to import "
                f"{name!r}; install it, or name its folder in PYTHONPATH"
            ) from error
    note(names)


def recall(names: Sequence[str], where: str) -> list[str]:
    """Imports what was noted; gives a sentence on each module that was not.

    Args:
      where: what names them, for the sentences.
    """
    noted, refused = _noted(), []
    for name in names:
        _check(name)
        if name in sys.modules:
            continue
        if name not in noted:
            refused.append(
                f"{where} names the module {name!r}, which no recipe of yours has "
                "used here, so it is not imported; read it, and name a recipe by "
                f"--config that has modules=({name!r},)"
            )
        elif wrong := _elsewhere(name, noted[name]):
            refused.append(f"{where} names the module {name!r}, {wrong}")
        else:
            importlib.import_module(name)
    return refused


def note(names: Sequence[str]) -> None:
    """Keeps where imported modules are from; nothing where no file can be written."""
    noted = _noted()
    known = noted | {name: _place(name) for name in names}
    if known == noted:
        return
    file = _file()
    part = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(known, indent=2) + "\n", **UTF8)
        part.replace(file)  # whole, whoever reads it now
    except OSError:
        return


def _check(name: str) -> None:
    if not all(part.isidentifier() for part in str(name).split(".")):
        raise ValueError(
            f"modules: {name!r} must be a module as one imports it, package.module"
        )


def _file() -> pathlib.Path:
    return cache.folder() / "modules.json"


def _noted() -> dict[str, str]:
    """Module -> the folder that its package or its file lay in."""
    try:
        return json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _place(name: str) -> str:
    """The folder on Python's path that a module is from; "" if it is not there."""
    spec = importlib.util.find_spec(name.partition(".")[0])  # which runs nothing
    if spec is None:
        return ""
    inside = [*(spec.submodule_search_locations or ()), spec.origin or ""][0]
    return str(pathlib.Path(inside).resolve().parent)


def _elsewhere(name: str, place: str) -> str:
    """What is wrong where another module has the name now; brings back its folder."""
    here = _place(name)
    if not here:
        sys.path.append(place)
        importlib.invalidate_caches()
        here = _place(name)
    if here == place:
        return ""
    return f"which was in {place} and is in {here or 'no folder'} now"
