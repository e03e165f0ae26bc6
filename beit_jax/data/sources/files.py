"""Where encoded files come from: a folder or an archive, read by name."""

import os
import pathlib
import stat
from collections.abc import Callable, Iterable, Mapping
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

    Hidden files are ignored, and what in archives is no plain file. Of a folder, that
    is told when it is read.
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
        found, above = [], {str(self._root): {_identity(self._root): self._root}}
        for folder, folders, files in os.walk(
            self._root, followlinks=True, onerror=_refuse
        ):
            folders[:] = [name for name in folders if not is_hidden(name)]
            over = above.pop(folder)
            for name in folders:
                inner = os.path.join(folder, name)
                above[inner] = over | {_refuse_loop(inner, over): inner}
            below = os.path.relpath(folder, self._root).replace(os.sep, "/")
            start = "" if below == "." else f"{below}/"
            found += [start + name for name in files if not is_hidden(name)]
        return sorted(filter(self._wanted, found))

    def missing(self, names: Iterable[str]) -> list[str]:
        """None: to look for a million files takes long; reading tells."""
        return []

    def read(self, name: str) -> bytes:
        path = self._root / name
        try:
            with open(path, "rb", opener=_at_once) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise BadExample(f"{path} is a pipe or a device, no plain file")
                return file.read()
        except OSError as error:
            raise BadExample(f"cannot read {path}: {error.strerror}") from error


def _refuse(error: OSError) -> None:
    raise ValueError(f"cannot list {error.filename}: {error.strerror}") from error


def _identity(folder: str | pathlib.Path) -> tuple[int, int]:
    """Of the folder itself, by whatever links it was reached."""
    try:
        there = os.stat(folder)
    except OSError as error:
        _refuse(error)
    return there.st_dev, there.st_ino


def _refuse_loop(folder: str, above: Mapping[tuple[int, int], str]) -> tuple[int, int]:
    """The identity of a folder that is none of those `above` it."""
    identity = _identity(folder)
    if identity in above:
        raise ValueError(
            f"{folder} links to a folder that it lies in, {above[identity]}; remove "
            "the link"
        )
    return identity


def _at_once(path: str, flags: int) -> int:
    """A handle, without waiting for whoever writes to a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)
