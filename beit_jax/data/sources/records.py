"""Records of sharded files read by index: TFRecord and ArrayRecord."""

import concurrent.futures
import functools
import io
import os
import struct
from collections.abc import Sequence
from typing import Protocol

import google_crc32c
import numpy as np

from beit_jax.data.sources.base import BadExample, DataError
from beit_jax.data.sources.index_cache import cached

_MOST_OPEN = 128  # files at once; systems often allow a process 1,024
_HEADER = struct.Struct("<QI")  # length of the record, and the length's checksum
_CHECKSUM = struct.Struct("<I")
_AGAIN = "copy or prepare that file again"


class Records(Protocol):
    """The records of several files; any thread may read."""

    def read(self, shard: int, number: int) -> bytes:
        """Raises BadExample when its checksum is not what it should be."""


class TFRecords:
    """TFRecord files, in which we find the records once and then read any of them.

    TensorFlow's own reader of single records takes 16 MB from the file for each (1.6
    ms), and crashes when threads share one.
    """

    def __init__(self, paths: Sequence[str], counts: Sequence[int]):
        """Finds the records.

        Args:
          paths: the files.
          counts: how many records each should have.

        Raises:
          ValueError: a file is cut off or has another number of records.
        """
        self._paths = paths
        index = cached("tfrecord", paths, lambda: _index(paths))
        self._bounds = np.split(index["bound"], np.cumsum(index["count"] + 1)[:-1])
        for path, found, want in zip(paths, index["count"], counts, strict=True):
            check_count(path, int(found), want)
        self._open = functools.lru_cache(_MOST_OPEN)(self._open_shard)

    def _open_shard(self, shard: int) -> io.FileIO:
        # Unbuffered, so that threads share only the handle, not a position. A file that
        # falls out of the cache closes itself when the last thread is done with it.
        return open(self._paths[shard], "rb", buffering=0)

    def read(self, shard: int, number: int) -> bytes:
        start, end = self._bounds[shard][number : number + 2].tolist()
        try:
            file = self._open(shard)  # held until read, or it might be closed before
            record = os.pread(file.fileno(), end - start, start)
        except OSError as error:
            raise _damaged(self._paths[shard], number, str(error)) from error
        if len(record) != end - start:
            raise _damaged(self._paths[shard], number, "the file has become shorter")
        data = record[_HEADER.size : -_CHECKSUM.size]
        (checksum,) = _CHECKSUM.unpack(record[-_CHECKSUM.size :])
        if _masked(google_crc32c.value(data)) != checksum:
            raise _damaged(self._paths[shard], number, "wrong checksum")
        return data


class ArrayRecords:
    """ArrayRecord files, which have an index of their own."""

    def __init__(self, paths: Sequence[str], counts: Sequence[int]):
        """Arguments and errors are those of `TFRecords`."""
        self._paths = paths
        self._open = functools.lru_cache(_MOST_OPEN)(self._open_shard)
        for shard, (path, want) in enumerate(zip(paths, counts, strict=True)):
            check_count(path, self._open(shard).num_records(), want)

    def _open_shard(self, shard: int):
        from array_record.python.array_record_module import ArrayRecordReader

        return ArrayRecordReader(
            self._paths[shard],
            options="readahead_buffer_size:0",  # it is for reading in order
            file_reader_buffer_size=2**15,
        )

    def read(self, shard: int, number: int) -> bytes:
        try:
            (data,) = self._open(shard).read([number])
        except (RuntimeError, ValueError) as error:
            raise _damaged(self._paths[shard], number, str(error)) from error
        return data


def check_count(path: str, found: int, want: int) -> None:
    """Raises ValueError when a file has another number of records than it should."""
    if found != want:
        raise DataError(f"{path} has {found} of {want} records; {_AGAIN}")


def _damaged(path: str, number: int, why: str) -> BadExample:
    return BadExample(f"record {number} of {path} is damaged ({why}); {_AGAIN}")


def _masked(crc: int) -> int:
    """What TFRecord files hold in place of a CRC."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _index(paths: Sequence[str]) -> dict[str, np.ndarray]:
    """Where the records of all files begin and end, and how many each file has."""
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        bounds = list(threads.map(_bounds, paths))
    return {
        "bound": np.concatenate(bounds),
        "count": np.array([len(each) - 1 for each in bounds], np.int64),
    }


def _bounds(path: str) -> np.ndarray:
    """(n + 1,) int64. Follows the lengths from record to record to the file's end."""
    bounds = [0]
    size = os.path.getsize(path)
    with open(path, "rb", buffering=0) as file:
        while bounds[-1] < size:
            header = os.pread(file.fileno(), _HEADER.size, bounds[-1])
            end = size + 1
            if len(header) == _HEADER.size:
                length, _ = _HEADER.unpack(header)
                end = bounds[-1] + _HEADER.size + length + _CHECKSUM.size
            if end > size:
                raise DataError(
                    f"{path} is cut off or damaged at record {len(bounds) - 1}, byte "
                    f"{bounds[-1]} of {size}; {_AGAIN}"
                )
            bounds.append(end)
    return np.array(bounds, np.int64)
