"""Data sets that TensorFlow Datasets has prepared, read offline and by index."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from beit_jax.data.sources import classes, records
from beit_jax.data.sources.base import BadExample, Info, Record, Source, digest
from beit_jax.data.sources.subset import Subset
from beit_jax.ranges import Count, SubsetSeed

_FORMATS = {"tfrecord": records.TFRecords, "array_record": records.ArrayRecords}


class Tfds(Source):
    """A split of a prepared data set. Nothing is ever downloaded.

    Images and label maps are read as they are encoded. Boxes are not read: they are
    relative to an image's size, which only decoding tells.
    """

    def __init__(
        self,
        dataset: str,
        split: str,
        data_dir: str = "",
        image_key: str = "image",
        label_key: str = "label",
        label_map_key: str = "",
        class_names: tuple = (),
        labels_per_class: Count = 0,
        subset_seed: SubsetSeed = 0,
        limit: Count = 0,
        part: str = "",
    ):
        """Finds the records.

        Args:
          dataset: a name with perhaps config and version ("imagenet2012:5.1.0"), or the
            folder that holds its features.json.
          split: a split or what TFDS makes of one: "train[:80%]", "train+test".
          data_dir: where data sets were prepared; empty: TFDS' own place.
          image_key: the feature with the image.
          label_key: that with the label; empty: no labels.
          label_map_key: that with a label map; empty: none.
          class_names: for a label that is a plain number, which has no names.
          labels_per_class: keep this many random images of each class; 0 = all. Needs
            all labels and so reads the whole split once, images and all.
          subset_seed: chooses them, and those of `limit`.
          limit: keep this many random images in all; 0 = all.
          part: "test" is every tenth example in order, "train" all others: for data
            without splits of its own. Subsets are drawn within the part.

        Raises:
          ValueError: it is not prepared, or has no such split or feature, or a file
            is missing, cut off or has another number of records than it should.
        """
        builder = _builder(dataset, data_dir)
        from tensorflow.core.example import example_pb2

        self._example = example_pb2.Example
        self._keys = (image_key, label_key, label_map_key)
        features = builder.info.features
        _check_features(features, *self._keys)
        class_names = _class_names(features, label_key, tuple(class_names))
        self._num_classes = len(class_names)
        pieces = _pieces(builder, dataset, split)
        self._paths = [piece.filename for piece in pieces]
        self._records = _open(builder, self._paths, pieces)
        self._places = _places(pieces)
        subset = Subset(part, limit, labels_per_class, subset_seed)
        chosen = subset.keep(
            len(self._places), self._read_labels if label_key else None, class_names
        )
        self._places = self._places[chosen]
        files = [f"{os.path.basename(p)} {os.path.getsize(p)}" for p in self._paths]
        self.info = Info(
            f"{builder.info.full_name} {split}",
            len(chosen),
            class_names,
            digest([builder.info.full_name, *files], self._places),
        )

    def read(self, index: int) -> Record:
        shard, number = self._places[index].tolist()
        data = self._records.read(shard, number)
        image, label, label_map = self._keys
        try:
            features = self._example.FromString(data).features.feature
            record = Record(
                features[image].bytes_list.value[0],
                features[label].int64_list.value[0] if label else None,
                features[label_map].bytes_list.value[0] if label_map else None,
            )
        except (IndexError, DecodeError) as error:
            keys = ", ".join(filter(None, self._keys))
            raise BadExample(
                f"{self.describe(index)} has not all of {keys}; prepare it again"
            ) from error
        if label and not 0 <= record.label < self._num_classes:
            raise BadExample(
                f"{self.describe(index)} has label {record.label}, which is outside "
                f"[0, {self._num_classes})"
            )
        return record

    def describe(self, index: int) -> str:
        shard, number = self._places[index].tolist()
        return f"record {number} of {self._paths[shard]}"

    def _read_labels(self, indices: np.ndarray) -> np.ndarray:
        return np.array([self.read(index).label for index in indices.tolist()])


def _builder(dataset: str, data_dir: str) -> Any:
    """What TFDS knows of a prepared data set, without code to prepare it."""
    from beit_jax.data import graph

    tfds = graph.datasets()
    from tensorflow_datasets.core import read_only_builder

    for setting, value in (("dataset", dataset), ("data_dir", data_dir)):
        if "://" in value:
            raise ValueError(f"{setting}={value!r} must be on this machine's disks")
    folder = os.path.expanduser(dataset)
    if os.path.isfile(os.path.join(folder, "features.json")):
        return tfds.builder_from_directory(folder)
    where = os.path.expanduser(data_dir) if data_dir else None
    try:
        # Unlike tfds.builder, this looks at files only and never at a network.
        return read_only_builder.builder_from_files(dataset, data_dir=where)
    except tfds.core.DatasetNotFoundError as error:
        argument = f", data_dir={where!r}" if where else ""
        where = where or tfds.core.constants.DATA_DIR
        raise ValueError(
            f"no prepared data set {dataset!r} in {where}; where there is a network, "
            "run this in Python once: "
            f"tensorflow_datasets.builder({dataset!r}{argument}).download_and_prepare()"
        ) from error


def _check_features(
    features: Any, image_key: str, label_key: str, label_map_key: str
) -> None:
    import tensorflow_datasets as tfds

    keys = {
        "image_key": image_key,
        "label_key": label_key,
        "label_map_key": label_map_key,
    }
    for setting, key in keys.items():
        if not key and setting != "image_key":
            continue
        if key not in features:
            raise ValueError(
                f"no feature {setting}={key!r}; there are {', '.join(sorted(features))}"
            )
        feature = features[key]
        if setting == "label_key":
            kind, right = "one whole number", feature.shape == ()
        else:
            kind, right = (
                "an image of integers",
                isinstance(feature, tfds.features.Image),
            )
        if not (right and np.issubdtype(feature.np_dtype, np.integer)):
            raise ValueError(f"feature {setting}={key!r} is not {kind}, but {feature}")


def _class_names(
    features: Any, label_key: str, given: tuple[str, ...]
) -> tuple[str, ...]:
    """Those of the label if it has names, else the given ones."""
    known = tuple(getattr(features[label_key], "names", ())) if label_key else ()
    if label_key and not (known or given):
        raise ValueError(f"label {label_key!r} has no class names; set class_names")
    return classes.one_of(label_key, known, given)


def _pieces(builder: Any, dataset: str, split: str) -> Sequence[Any]:
    """Runs of records that make up the split: filename, skip, take."""
    splits = builder.info.splits
    try:
        pieces = splits[split].file_instructions
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"no split {split!r} of {dataset}; it has {', '.join(splits)} and parts "
            "such as 'train[:80%]'"
        ) from error
    if not pieces:
        raise ValueError(f"split {split!r} of {dataset} has no examples")
    return pieces


def _open(builder: Any, paths: Sequence[str], pieces: Sequence[Any]) -> records.Records:
    for path, piece in zip(paths, pieces, strict=True):
        if not os.path.isfile(path):
            raise ValueError(f"{path} is missing; copy or prepare it again")
        if not os.path.getsize(path):
            records.check_count(path, 0, piece.examples_in_shard)
    kind = builder.info.file_format.value
    if kind not in _FORMATS:
        raise ValueError(
            f"{builder.info.full_name} is stored as {kind}, which cannot be read by "
            f"index; prepare it as {' or '.join(_FORMATS)} (file_format=...)"
        )
    return _FORMATS[kind](paths, [piece.examples_in_shard for piece in pieces])


def _places(pieces: Sequence[Any]) -> np.ndarray:
    """(n, 2) int64: piece and number of the record in its file."""
    return np.concatenate(
        [
            np.stack(np.broadcast_arrays(i, piece.skip + np.arange(piece.take)), axis=1)
            for i, piece in enumerate(pieces)
        ]
    )
