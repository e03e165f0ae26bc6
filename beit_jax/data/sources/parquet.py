"""Images in Parquet files, as bytes in a column; the extra "parquet"."""

import os
from typing import Any

from beit_jax.data.sources.archives import MEMORY_LIMIT  # one cannot seek here either
from beit_jax.data.sources.base import DataError
from beit_jax.data.sources.subset import Subset
from beit_jax.data.sources.table import Table, files_at
from beit_jax.lookup import needed
from beit_jax.ranges import Count, SubsetSeed


class Parquet(Table):
    """The rows of one or several files, which stay in memory.

    Images are bytes, or as Hugging Face has them, {"bytes": ..., "path": ...}.
    """

    def __init__(
        self,
        path: str,
        image_key: str = "image",
        label_key: str = "label",
        class_names: tuple = (),
        labels_per_class: Count = 0,
        subset_seed: SubsetSeed = 0,
        limit: Count = 0,
        part: str = "",
    ):
        """Reads the files.

        Args:
          path: a file, a folder of .parquet files, or a pattern, see `files_at`.
          image_key: the column with images.
          label_key: that with class names or numbers, or lists of them; empty: none.
          class_names: in the order of the labels; empty: as they occur.
          labels_per_class, subset_seed, limit, part: as of a folder.

        Raises:
          ValueError: no pyarrow, no files, columns that there are not, or too many
            bytes.
        """
        needed("pyarrow.parquet", "parquet")  # is said before what is wrong with files
        files = files_at(path, ".parquet")
        whole = _read(files, list(filter(None, (image_key, label_key))))
        self._images = whole[image_key]
        labels = whole[label_key].to_pylist() if label_key else None
        told = [f"{os.path.basename(f)} {os.path.getsize(f)}" for f in files]
        subset = Subset(part, limit, labels_per_class, subset_seed)
        name = os.path.basename(path.rstrip("/"))
        self._keep(name, told, labels, len(whole), class_names, subset)

    def _image(self, row: int) -> bytes:
        value = self._images[row].as_py()
        return value["bytes"] if isinstance(value, dict) else value


def _read(files: list[str], keys: list[str]) -> Any:
    """The columns of all files as one table."""
    pyarrow, size, tables = needed("pyarrow", "parquet"), 0, []
    for file in files:
        tables.append(_columns(file, keys))
        size += tables[-1].nbytes
        if size > MEMORY_LIMIT:
            raise DataError(
                f"{file} and what comes before it take more than {MEMORY_LIMIT} bytes, "
                "and Parquet stays in memory; make it a data set of Hugging Face once "
                "(datasets.load_dataset('parquet', ...).save_to_disk) and use the "
                "source 'huggingface', which reads from disk"
            )
    return pyarrow.concat_tables(tables)


def _columns(file: str, keys: list[str]) -> Any:
    parquet = needed("pyarrow.parquet", "parquet")
    try:
        opened = parquet.ParquetFile(file)
        there = opened.schema_arrow.names
        if missing := [key for key in keys if key not in there]:
            raise ValueError(
                f"no column {missing[0]!r} in {file}; it has {', '.join(there)}"
            )
        return opened.read(columns=keys)
    except (OSError, needed("pyarrow", "parquet").ArrowInvalid) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
