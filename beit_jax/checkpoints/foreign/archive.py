"""Files that strangers made: mapped into memory, and zip archives checked first."""

import mmap
import pathlib
import re
import struct
import zipfile

import numpy as np


def map_file(path: pathlib.Path) -> mmap.mmap:
    """A file's bytes, which are read when they are looked at."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def check(archive: zipfile.ZipFile, size: int) -> None:
    """Checks the entries' names and claims, and then their checksums.

    Args:
      size: the file's bytes.

    Raises:
      ValueError, zipfile.BadZipFile: the archive is damaged or hostile.
    """
    infos = archive.infolist()
    for info in infos:
        name = info.filename
        if re.match(r"/|[A-Za-z]:", name) or ".." in name.split("/") or "\\" in name:
            raise ValueError(f"its entry {name!r} leads out of the archive")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise ValueError(f"its entry {name!r} is compressed or encrypted")
        if info.compress_size != info.file_size:
            raise ValueError(f"its entry {name!r} lies about its size")
    if len({info.filename for info in infos}) < len(infos):
        raise ValueError("it has several entries of the same name")
    if sum(info.file_size for info in infos) > size:
        raise ValueError("its entries claim more bytes than there are")
    if bad := archive.testzip():
        raise ValueError(f"its entry {bad!r} is damaged (wrong checksum)")


def view(mapped: mmap.mmap, info: zipfile.ZipInfo) -> np.ndarray:
    """(n,) uint8, an entry's bytes; they lie behind a header of their own."""
    lengths = struct.unpack_from("<HH", mapped, info.header_offset + 26)
    start = info.header_offset + 30 + sum(lengths)
    return np.frombuffer(mapped, np.uint8, info.file_size, start)
