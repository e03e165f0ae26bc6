"""Shards of WebDataset: .tar files with KEY.jpg beside KEY.cls or KEY.json."""

import json
import os
import pathlib
import posixpath
from collections.abc import Iterator
from typing import Any

from beit_jax.data.sources import archives
from beit_jax.data.sources.base import DataError
from beit_jax.data.sources.subset import Subset
from beit_jax.data.sources.suffixes import SUFFIXES
from beit_jax.data.sources.table import Table, files_at
from beit_jax.ranges import Count, SubsetSeed

LABEL = ".cls"


class WebDataset(Table):
    """All examples of the shards, read where they lie in their .tar files.

    A label is the text of KEY.cls, or of KEY.json the value of `label_key`.
    """

    def __init__(
        self,
        path: str,
        label_key: str = "label",
        class_names: tuple = (),
        labels_per_class: Count = 0,
        subset_seed: SubsetSeed = 0,
        limit: Count = 0,
        part: str = "",
    ):
        """Finds the examples, and reads their labels.

        Args:
          path: "train-{000..009}.tar", a pattern with *, a folder or a file.
          label_key: of the .json files; empty: no labels, of .cls neither.
          class_names: in the order of the labels; empty: as they occur.
          labels_per_class, subset_seed, limit, part: as of a folder.

        Raises:
          ValueError: no shards, no images, or labels for some of them only.
        """
        shards = [pathlib.Path(file) for file in files_at(path, ".tar")]
        self._shards = [archives.Tar(shard, _wanted) for shard in shards]
        self._places = [*self._examples()]
        if not self._places:
            raise ValueError(f"no images in {path}; looked for {', '.join(SUFFIXES)}")
        labels = self._all_labels(label_key) if label_key else None
        told = [f"{shard.name} {shard.stat().st_size}" for shard in shards]
        subset = Subset(part, limit, labels_per_class, subset_seed)
        name, count = os.path.basename(path.rstrip("/")), len(self._places)
        self._keep(name, told, labels, count, class_names, subset)

    def _examples(self) -> Iterator[tuple[int, str, dict[str, str]]]:
        """Number of the shard, name of the image, suffix -> name beside it."""
        for number, shard in enumerate(self._shards):
            beside: dict[str, dict[str, str]] = {}
            for name in shard.names():
                key, suffix = _split(name)
                beside.setdefault(key, {})[suffix] = name
            for files in beside.values():
                images = [name for suffix, name in files.items() if suffix in SUFFIXES]
                yield from ((number, name, files) for name in images[:1])

    def _all_labels(self, label_key: str) -> list[Any] | None:
        labels = [self._label(*place, label_key) for place in self._places]
        have = [label is not None for label in labels]
        if not all(have):
            shard, name, _ = self._places[have.index(False)]
            if any(have):
                raise DataError(f"{name} has no label, others have; pack it again")
            return None
        return labels

    def _label(self, shard: int, image: str, files: dict[str, str], key: str) -> Any:
        if LABEL in files:
            return self._shards[shard].read(files[LABEL]).decode().strip()
        if ".json" not in files:
            return None
        name = files[".json"]
        try:
            return json.loads(self._shards[shard].read(name)).get(key)
        except (ValueError, AttributeError) as error:
            raise DataError(f"{name} is no object in JSON: {error}") from error

    def _image(self, row: int) -> bytes:
        shard, name, _ = self._places[row]
        return self._shards[shard].read(name)


def _split(name: str) -> tuple[str, str]:
    """Key and suffix, which begins at the first point of the file's name."""
    folder, file = posixpath.split(name)
    stem, point, suffix = file.partition(".")
    return posixpath.join(folder, stem), (point + suffix).lower()


def _wanted(name: str) -> bool:
    return _split(name)[1] in (*SUFFIXES, LABEL, ".json")
