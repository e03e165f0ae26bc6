"""Images and labels in the columns of a table, read by index."""

import glob
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from beit_jax import stores
from beit_jax.data.sources.base import BadExample, Info, Record, Source, digest
from beit_jax.data.sources.classes import infer_names, numbering
from beit_jax.data.sources.subset import Subset


class Table(Source):
    """What sources share that have rows; they give `_image(row)`."""

    def _keep(
        self,
        name: str,
        told: Sequence[str],
        labels: Sequence[Any] | None,
        count: int,
        class_names: tuple,
        subset: Subset,
    ) -> None:
        """Numbers the labels and chooses the rows.

        Args:
          told: what makes the table this one, for the digest.
          labels: of all rows: a class name or number each, or a list; None: none.
          count: rows.
        """
        names, numbers = tuple(map(str, class_names)), None
        several = labels is not None and any(isinstance(x, list) for x in labels)
        if labels is not None:
            rows = labels if several else [[label] for label in labels]
            try:
                names = names or infer_names([label for row in rows for label in row])
                number = numbering(names)
                numbers = [sorted({number(label) for label in row}) for row in rows]
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name} cannot be used: {error}") from error
        single = numbers is not None and not several
        flat = np.array([row[0] for row in numbers], np.int32) if single else None
        self._rows = subset.keep(count, flat.__getitem__ if single else None, names)
        self._labels, self._several = numbers, several
        kept = self._rows if numbers is None else _flat(numbers, self._rows)
        self.info = Info(name, len(self._rows), names, digest(told, kept))

    def _image(self, row: int) -> bytes:
        raise NotImplementedError

    def read(self, index: int) -> Record:
        row = int(self._rows[index])
        image = self._image(row)
        if not image:
            raise BadExample(f"{self.describe(index)} has no image")
        if self._labels is None:
            return Record(image)
        if self._several:
            labels = np.array(self._labels[row], np.int32)
            return Record(image, more={"labels": labels})
        return Record(image, self._labels[row][0])

    def describe(self, index: int) -> str:
        return f"row {self._rows[index]} of {self.info.name}"

    def label_counts(self) -> np.ndarray:
        given = [label for row in self._rows for label in self._labels[row]]
        return np.bincount(given, minlength=len(self.info.class_names))


def files_at(path: str, suffix: str) -> list[str]:
    """A file; those of a folder with a suffix; or of "x-{000..009}.tar" or "x-*.tar".

    In the order of their names. Those in a bucket are copied to the cache folder.

    Raises:
      ValueError: there are none, or one that is counted is missing.
    """
    if stores.is_remote(path):
        return _copied(path, suffix)
    place = os.path.expanduser(path)
    if os.path.isfile(place):  # whatever its name has in it
        return [place]
    patterns = _counted(place)
    if os.path.isdir(place):
        patterns = [os.path.join(glob.escape(place), f"*{suffix}")]
    found = [sorted(glob.glob(one)) or [one] for one in patterns]
    files = [file for one in found for file in one]
    if missing := [file for file in files if not os.path.isfile(file)]:
        raise ValueError(
            f"no shard {missing[0]!r}: no {suffix} file, nor a folder of them, at "
            f"path={path!r}"
        )
    return files


def _copied(url: str, suffix: str) -> list[str]:
    if not url.lower().endswith(suffix):
        url = f"{url.rstrip('/')}/*{suffix}"
    folder, _, pattern = url.rpartition("/")
    found = stores.Store(folder).matching(pattern) if "*" in pattern else [pattern]
    found = [name for one in found for name in _counted(one)]
    if not found:
        raise ValueError(f"no {suffix} files at path={url!r}")
    return [str(stores.copied(f"{folder}/{name}")) for name in found]


def _counted(path: str) -> list[str]:
    """ "a-{08..11}.tar" -> four names."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", path)
    if not match:
        return [path]
    first, last = match.groups()
    return [
        path[: match.start()] + str(number).zfill(len(first)) + rest
        for number in range(int(first), int(last) + 1)
        for rest in _counted(path[match.end() :])
    ]


def _flat(numbers: Sequence[list[int]], rows: np.ndarray) -> np.ndarray:
    """Rows, how many labels each has, and the labels."""
    mine = [numbers[row] for row in rows]
    return np.concatenate([rows, [len(row) for row in mine], *mine]).astype(np.int64)
