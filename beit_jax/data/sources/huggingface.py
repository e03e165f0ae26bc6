"""Data sets of the package datasets of Hugging Face; the extra "datasets"."""

import os
from typing import Any

from beit_jax.data.sources import classes
from beit_jax.data.sources.subset import Subset
from beit_jax.data.sources.table import Table
from beit_jax.lookup import needed
from beit_jax.ranges import Count, SubsetSeed


class HuggingFace(Table):
    """A split, read from disk by index, where it lies as Arrow."""

    def __init__(
        self,
        dataset: str,
        split: str = "train",
        image_key: str = "image",
        label_key: str = "label",
        class_names: tuple = (),
        labels_per_class: Count = 0,
        subset_seed: SubsetSeed = 0,
        limit: Count = 0,
        part: str = "",
    ):
        """Opens the data set.

        Args:
          dataset: a folder that `save_to_disk` wrote, or a name on the hub, "cifar10"
            say or "owner/name:config", which is downloaded unless it has been.
          split: of a data set that has several, "train[:80%]" of one on the hub.
          image_key: the feature with the image.
          label_key: that with the label or a list of labels; empty: none.
          class_names: for a label that has no names of its own.
          labels_per_class, subset_seed, limit, part: as of a folder.

        Raises:
          ValueError: no package datasets, no such data set, split or feature.
        """
        datasets = needed("datasets", "datasets")
        rows = _open(datasets, dataset, split)
        for key in filter(None, (image_key, label_key)):
            if key not in rows.features:
                there = ", ".join(rows.features)
                raise ValueError(f"no feature {key!r} in {dataset}; it has {there}")
        own = _names(rows.features[label_key]) if label_key else ()
        names = classes.one_of(label_key, own, tuple(map(str, class_names)))
        labels = list(rows[label_key]) if label_key else None
        self._images, self._key = _encoded(datasets, rows, image_key), image_key
        subset = Subset(part, limit, labels_per_class, subset_seed)
        told = [os.path.basename(dataset.rstrip("/")), split, str(len(rows))]
        name = f"{told[0]} {split}"
        self._keep(name, told, labels, len(rows), names, subset)

    def _image(self, row: int) -> bytes | None:
        value = self._images[row][self._key]
        if isinstance(value, dict) and value["bytes"] is None and value["path"]:
            with open(value["path"], "rb") as file:
                return file.read()
        return value["bytes"] if isinstance(value, dict) else value


def _open(datasets: Any, dataset: str, split: str) -> Any:
    folder = os.path.expanduser(dataset)
    try:
        if os.path.isdir(folder):
            opened = datasets.load_from_disk(folder)
            return opened[split] if isinstance(opened, dict) else opened
        name, _, config = dataset.partition(":")
        return datasets.load_dataset(name, config or None, split=split)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"no data set {dataset!r} with split {split!r}: {error}"
        ) from error


def _names(feature: Any) -> tuple[str, ...]:
    """Those of a ClassLabel, or of a list of them."""
    return tuple(getattr(getattr(feature, "feature", feature), "names", None) or ())


def _encoded(datasets: Any, rows: Any, key: str) -> Any:
    """The images' column alone, as it is stored."""
    rows = rows.select_columns([key])
    if isinstance(rows.features[key], datasets.Image):
        rows = rows.cast_column(key, datasets.Image(decode=False))
    return rows
