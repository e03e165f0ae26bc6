"""Keeps what is slow to find out about large files in the user's cache folder."""

import contextlib
import hashlib
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from beit_jax import cache

Arrays = Mapping[str, np.ndarray]

_WORTH_BYTES = 100_000  # some 2,000 files: less is soon found again
_STAMP = "stamp"


def cached(kind: str, paths: Sequence[str], make: Callable[[], Arrays]) -> Arrays:
    """`make()`, or what it returned before if the files are still the same.

    Files count as the same by absolute path, size and time of change. When what is kept
    cannot be read it is made again, and when it cannot be written we do without.

    Args:
      kind: of the index, a word; a new layout needs a new word.
      paths: the files that the index is of.
      make: finds the arrays; small ones are not kept.
    """
    paths = [os.path.abspath(path) for path in paths]
    stamp = np.array([_stamp(path) for path in paths], np.int64)
    name = hashlib.sha256("\0".join([kind, *paths]).encode(errors="surrogateescape"))
    file = cache.folder() / f"{kind}-{name.hexdigest()[:32]}.npz"
    known = _load(file)
    if known is not None and np.array_equal(known.pop(_STAMP, None), stamp):
        return known
    made = make()
    if sum(array.nbytes for array in made.values()) >= _WORTH_BYTES:
        _save(file, {**made, _STAMP: stamp})
    return made


def _stamp(path: str) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns


def _load(file: pathlib.Path) -> dict[str, np.ndarray] | None:
    try:
        # Its parts are read here and now, which checks their CRCs.
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _save(file: pathlib.Path, arrays: Arrays) -> None:
    with contextlib.suppress(OSError):  # no space or no right to write: do without
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=file.parent, suffix=".unfinished")
        try:
            with os.fdopen(handle, "wb") as out:
                np.savez(out, **arrays)
            os.replace(unfinished, file)
        except OSError:
            os.unlink(unfinished)
            raise
