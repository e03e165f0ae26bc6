"""Files inside archives, read where they lie and never unpacked to disk.

Only .zip has a checksum for each file. A .tar.gz is checked as a whole when it is read
in; of a .tar, headers and end are checked, and damage within a file shows only when
its image is decoded.
"""

import array
import contextlib
import gzip
import lzma
import os
import pathlib
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from beit_jax.data.sources.base import BadExample, DataError
from beit_jax.data.sources.index_cache import cached
from beit_jax.data.sources.names import Names
from beit_jax.data.sources.paths import inside, is_hidden

MEMORY_LIMIT = 4 * 2**30  # bytes of wanted files that a .tar.gz may unpack to
INFLATED_LIMIT = 2**29  # bytes of a file of a .zip: 8 for each of 8192 x 8192 pixels
HEADER = tarfile.BLOCKSIZE  # bytes that tell what an archive is
_CHUNK = 2**20
_FAT = 0  # the system that Windows' programs say a .zip is made on


class Tar:
    """A .tar, whose files are read at their offsets.

    The names and offsets of a large archive are kept in the cache folder, because
    finding them means reading all over it.
    """

    def __init__(self, path: pathlib.Path, wanted: Callable[[str], bool]):
        self._path = path
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  kept for reading
        self._unchanged = _Unchanged(path, self._file.fileno())
        self._wanted, self.stamped = wanted, (str(path),)
        index = cached("tar-sorted", self.stamped, lambda: _tar_index(path))
        self._names = Names.of_packed(index)
        self._offsets, self._sizes = index["offset"], index["size"]

    def known(self) -> Names:
        return self._names

    def names(self) -> list[str]:
        return [*filter(self._wanted, self._names)]

    def missing(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self._names.find(name) < 0]

    def read(self, name: str) -> bytes:
        if (place := self._names.find(name)) < 0:
            raise KeyError(name)
        offset, size = int(self._offsets[place]), int(self._sizes[place])
        self._unchanged.check()
        try:
            data = os.pread(self._file.fileno(), size, offset)
        except OSError as error:
            raise BadExample(
                f"cannot read {self._path}/{name}: {error.strerror}"
            ) from error
        if len(data) != size:
            raise BadExample(
                f"{self._path}/{name} has {len(data)} of its {size} bytes; copy the "
                "archive again"
            )
        return data


class TarInMemory:
    """A .tar.gz, in which one cannot seek: its wanted files stay in memory."""

    def __init__(self, path: pathlib.Path, wanted: Callable[[str], bool]):
        self._files: dict[str, bytes] = {}
        self.stamped, total = (), 0
        with gzip.open(path) as file, _tar(path, _with_tar(path, file)) as archive:
            for name, member in _members(path, archive):
                if not wanted(name):
                    continue
                total += member.size
                if total > MEMORY_LIMIT:
                    raise DataError(
                        f"the files in {path} take more than {MEMORY_LIMIT} bytes, and "
                        f"those of a .tar.gz stay in memory; unpack the outer layer "
                        f"once (gunzip --keep {path}) and use the .tar"
                    )
                self._files[name] = archive.extractfile(member).read()
            while file.read(_CHUNK):  # the end holds the checksum of it all
                pass

    def known(self) -> Names:
        return Names(self.names())

    def names(self) -> list[str]:
        return sorted(self._files)

    def missing(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name not in self._files]

    def read(self, name: str) -> bytes:
        return self._files[name]


class Zip:
    """A .zip, whose files are found by its directory and checked by their CRC-32."""

    def __init__(self, path: pathlib.Path, wanted: Callable[[str], bool]):
        self._path, self.stamped = path, ()
        file = open(path, "rb")  # noqa: SIM115  kept for reading
        self._unchanged = _Unchanged(path, file.fileno())
        with _damage_named(path):
            self._zip = zipfile.ZipFile(file)
        self._members: dict[str, zipfile.ZipInfo] = {}
        infos = self._zip.infolist()
        windows = not any("/" in member.filename for member in infos)
        for member in infos:
            # Some programs write backslashes between folders, against the standard.
            raw, here = member.filename, windows or member.create_system == _FAT
            raw = raw.replace("\\", "/") if here else raw
            name, link = _member_name(path, raw), member.external_attr >> 16
            if raw.endswith("/") or stat.S_ISLNK(link):
                continue
            if is_hidden(name) or not wanted(name):
                continue
            if member.flag_bits & 1:
                raise DataError(
                    f"{path}/{name} is encrypted; pack the images without a password"
                )
            self._members[name] = member

    def known(self) -> Names:
        return Names(self.names())

    def names(self) -> list[str]:
        return sorted(self._members)

    def missing(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name not in self._members]

    def read(self, name: str) -> bytes:
        self._unchanged.check()
        member = self._members[name]
        if member.file_size > INFLATED_LIMIT:  # more than it says is never inflated
            raise BadExample(
                f"{self._path}/{name} would unpack from {member.compress_size} to "
                f"{member.file_size} bytes, more than any image has "
                f"({INFLATED_LIMIT}); if it is one, unpack the archive into a folder"
            )
        try:
            return self._zip.read(member)
        except _DAMAGE as error:
            raise BadExample(
                f"cannot read {self._path}/{name}: {error}; pack or copy the archive "
                "again"
            ) from error


def kind_of(start: bytes) -> type[Tar | TarInMemory | Zip] | None:
    """The kind of archive that begins so, in at least HEADER bytes; None: unknown."""
    if start[:4] in (b"PK\3\4", b"PK\5\6"):
        return Zip
    if start[:2] == b"\x1f\x8b":
        return TarInMemory
    return Tar if _is_tar(start) else None


def _is_tar(start: bytes) -> bool:
    """Whether it is a whole header with the right checksum."""
    try:
        tarfile.TarInfo.frombuf(start[:HEADER], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


class _Unchanged:
    """Refuses to go on with an archive that somebody writes to while we read it."""

    def __init__(self, path: pathlib.Path, handle: int):
        self._path, self._handle = path, handle
        self._stamp = self._now()

    def _now(self) -> tuple[int, int]:
        now = os.fstat(self._handle)
        return now.st_size, now.st_mtime_ns

    def check(self) -> None:
        if self._now() != self._stamp:
            raise DataError(
                f"{self._path} has changed since it was opened; start again once "
                "nothing writes to it"
            )


class _LastRead:
    """A file that remembers what was read last."""

    def __init__(self, file):
        self._file = file
        self.seek, self.tell = file.seek, file.tell
        self.data = b""

    def read(self, size: int) -> bytes:
        self.data = self._file.read(size)
        return self.data


_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # of zipfile, for a version or compression from elsewhere
    OSError,
)


@contextlib.contextmanager
def _damage_named(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise DataError(
            f"{path} is cut off or damaged ({error}); pack or copy it again"
        ) from error


@contextlib.contextmanager
def _tar(path: pathlib.Path, file) -> Iterator[tarfile.TarFile]:
    """An archive to go through once, to its end.

    tarfile takes a damaged or cut header for the end. So we ask for the block of zeros
    that ends an archive.
    """
    last = _LastRead(file)
    with _damage_named(path):
        with tarfile.open(fileobj=last, mode="r:") as archive:
            yield archive
        if last.data != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end-of-archive mark where it should end")


def _with_tar(path: pathlib.Path, file: gzip.GzipFile) -> gzip.GzipFile:
    """The same file at its start, when what is compressed is a tar archive."""
    with _damage_named(path):
        start = file.read(HEADER)
        if any(start) and not _is_tar(start):  # an empty one has zeros alone
            raise tarfile.ReadError("what gzip compressed begins as no tar archive")
        file.seek(0)
    return file


def _members(
    path: pathlib.Path, archive: tarfile.TarFile
) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The plain files with their names."""
    while (member := archive.next()) is not None:
        archive.members.clear()  # a kilobyte for each of a million files adds up
        name = _member_name(path, member.name)
        if member.issparse():
            raise DataError(f"{path}/{name} is stored sparse; pack it without -S")
        if member.isreg() and not is_hidden(name):
            yield name, member


def _member_name(path: pathlib.Path, name: str) -> str:
    try:
        return inside(name)
    except ValueError as error:
        raise DataError(f"in {path}, {error}; pack the archive again") from error


def _tar_index(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The names, sorted, and where the files lie; of two of one name the last one."""
    last: dict[str, int] = {}
    offsets, sizes = array.array("q"), array.array("q")
    with open(path, "rb") as file, _tar(path, file) as archive:
        for name, member in _members(path, archive):
            last[name] = len(sizes)
            offsets.append(member.offset_data)
            sizes.append(member.size)
    names = sorted(last)
    order = np.fromiter(map(last.__getitem__, names), np.int64, len(names))
    size = np.array(sizes, np.int64)[order]
    if size.max(initial=0) < 2**32:
        size = size.astype(np.uint32)
    offset = np.array(offsets, np.int64)[order]
    return {**Names(names).packed(), "offset": offset, "size": size}
