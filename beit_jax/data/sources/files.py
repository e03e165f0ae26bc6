"""Where encoded files come from: a folder or an archive, read by name."""

import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Protocol

from beit_jax.data.sources import archives
from beit_jax.data.sources.base import BadExample
from beit_jax.data.sources.paths import is_hidden

KINDS = {
    ".tar": archives.Tar,
    ".tar.gz": archives.TarInMemory,
    ".tgz": archives.TarInMemory,
    ".zip": archives.Zip,
}


class Files(Protocol):
    """Files below one root. Nothing is unpacked to disk; any thread may read.

    What is no plain file is ignored, and so are links inside archives and hidden files.
    """

    def names(self) -> list[str]:
        """Sorted paths relative to the root, with forward slashes."""

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that surely cannot be read."""

    def read(self, name: str) -> bytes:
        """Raises BadExample when the file cannot be read."""


def open_files(path: str, wanted: Callable[[str], bool]) -> Files:
    """The files at `path` whose names are `wanted`.

    Raises:
      ValueError: neither a folder nor an archive there, or a damaged archive.
    """
    root = pathlib.Path(path).expanduser()
    if root.is_dir():
        return Directory(root, wanted)
    kinds = [k for suffix, k in KINDS.items() if root.name.lower().endswith(suffix)]
    if not root.is_file() or not kinds:
        raise ValueError(
            f"no folder or archive ({', '.join(KINDS)}) at path={str(path)!r}"
        )
    return kinds[0](root, wanted)


class Directory:
    """Files on disk. Links are followed: class folders may lie elsewhere."""

    def __init__(self, root: pathlib.Path, wanted: Callable[[str], bool]):
        self._root = root
        self._wanted = wanted

    def names(self) -> list[str]:
        found = []
        for folder, folders, files in os.walk(
            self._root, followlinks=True, onerror=_refuse
        ):
            folders[:] = [name for name in folders if not is_hidden(name)]
            for name in folders:
                _refuse_loop(os.path.join(folder, name))
            below = os.path.relpath(folder, self._root).replace(os.sep, "/")
            start = "" if below == "." else f"{below}/"
            found += [start + name for name in files if not is_hidden(name)]
        return sorted(filter(self._wanted, found))

    def missing(self, names: Iterable[str]) -> list[str]:
        """None: to look for a million files takes long; reading tells."""
        return []

    def read(self, name: str) -> bytes:
        try:
            return (self._root / name).read_bytes()
        except OSError as error:
            raise BadExample(
                f"cannot read {self._root / name}: {error.strerror}"
            ) from error


def _refuse(error: OSError) -> None:
    raise ValueError(f"cannot list {error.filename}: {error.strerror}") from error


def _refuse_loop(folder: str) -> None:
    if not os.path.islink(folder):
        return
    target, above = os.path.realpath(folder), os.path.realpath(os.path.dirname(folder))
    if f"{above}/".startswith(f"{target}/"):
        raise ValueError(f"{folder} links to a folder that it lies in; remove the link")
