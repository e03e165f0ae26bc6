"""Where encoded files come from: a folder or an archive, read by name."""

import os
import pathlib
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from beit_jax import stores
from beit_jax.data.sources import archives
from beit_jax.data.sources.base import BadExample, DataError
from beit_jax.data.sources.names import Names
from beit_jax.data.sources.paths import is_hidden

KINDS = {
    ".tar": archives.Tar,
    ".tar.gz": archives.TarInMemory,
    ".tgz": archives.TarInMemory,
    ".zip": archives.Zip,
}

# How a file begins that is taken for an archive -> what it is, and what to do.
_PACK = "unpack it, or pack it as .tar, .tar.gz or .zip"
_AGAIN = "download it again"
OTHERS = {
    rb"BZh|\xfd7zXZ|\x28\xb5\x2f\xfd": f"is compressed by bzip2, xz or zstd; {_PACK}",
    rb"7z\xbc\xaf|Rar!": f"is of 7-Zip or RAR; {_PACK}",
    rb"\s*<(!doctype|html|\?xml)": f"is a web page, a login or an error; {_AGAIN}",
    rb"\s*\{": f"is a text in JSON, perhaps an error; {_AGAIN}",
    rb"version https://git-lfs": "is git-lfs's pointer to it; run `git lfs pull`",
}


class Files(Protocol):
    """Files below one root. Nothing is unpacked to disk; any thread may read.

    Hidden files are ignored, and what in archives is no plain file. Of a folder, that
    is told when it is read.

    Attributes:
      stamped: files by whose size and time of change all that is known of it stays
        right; none where one has to look again.
    """

    stamped: tuple[str, ...]

    def known(self) -> Names:
        """Sorted, all of `names`, and perhaps more that can be read."""

    def names(self) -> list[str]:
        """Sorted paths relative to the root, with forward slashes."""

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that surely cannot be read."""

    def read(self, name: str) -> bytes:
        """Raises BadExample when the file cannot be read."""


def open_files(path: str, wanted: Callable[[str], bool]) -> Files:
    """The files at `path` whose names are `wanted`.

    Of a folder in a bucket each is read when it is asked for; an archive is copied to
    the cache folder first.

    Raises:
      ValueError: neither a folder nor an archive there, or a damaged archive.
    """
    if stores.is_remote(path) and not path.lower().endswith(tuple(KINDS)):
        return Bucket(path, wanted)
    root = on_disk(path)
    if root.is_dir():
        return Directory(root, wanted)
    kind = _kind(root) if root.is_file() else None
    if kind is None:
        raise ValueError(
            f"no folder or archive ({', '.join(KINDS)}) at path={str(path)!r}"
        )
    return kind(root, wanted)


def on_disk(path: str) -> pathlib.Path:
    """The file at `path`, which is copied to the cache folder if it is in a bucket."""
    if stores.is_remote(path):
        return stores.copied(path)
    return pathlib.Path(path).expanduser()


def is_archive(path: pathlib.Path) -> bool:
    """Whether a file is called or begins as an archive."""
    try:
        with open(path, "rb") as file:
            kind = archives.kind_of(file.read(archives.HEADER))
    except OSError:
        kind = None  # reading tells
    return kind is not None or path.name.lower().endswith(tuple(KINDS))


def _kind(path: pathlib.Path) -> Callable[..., Files] | None:
    """The kind of archive, by its content or else by its name; None: it is none.

    Raises:
      DataError: it is something that is often taken for an archive.
    """
    with open(path, "rb") as file:
        start = file.read(archives.HEADER)
    if kind := archives.kind_of(start):
        return kind
    named = [k for suffix, k in KINDS.items() if path.name.lower().endswith(suffix)]
    for pattern, what in OTHERS.items():
        if re.match(pattern, start, re.IGNORECASE):
            raise DataError(f"{path} is no archive that is read here: it {what}")
    return named[0] if named else None


class Directory:
    """Files on disk. Links are followed: class folders may lie elsewhere."""

    def __init__(self, root: pathlib.Path, wanted: Callable[[str], bool]):
        self._root = root
        self._wanted, self.stamped = wanted, ()

    def known(self) -> Names:
        return Names(self.names())

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
                plain = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
                data = file.read() if plain else b""
        except (OSError, ValueError) as error:  # ValueError: no file can be called so
            why = getattr(error, "strerror", error)
            raise BadExample(f"cannot read {path}: {why}") from error
        if not plain:
            raise BadExample(f"{path} is a pipe or a device, no plain file")
        return data


class Bucket:
    """Files below a folder in a bucket: a request each, of which a batch makes many."""

    def __init__(self, url: str, wanted: Callable[[str], bool]):
        self._store = stores.Store(url)
        self._wanted, self.stamped = wanted, ()

    def known(self) -> Names:
        return Names(self.names())

    def names(self) -> list[str]:
        found = self._store.versions()
        return sorted(n for n in found if n and not is_hidden(n) and self._wanted(n))

    def missing(self, names: Iterable[str]) -> list[str]:
        """None: reading tells, as of a folder."""
        return []

    def read(self, name: str) -> bytes:
        try:
            return self._store.read(name)
        except FileNotFoundError as error:
            raise BadExample(f"cannot read {self._store.url}/{name}: none") from error


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
