"""Evaluation batches that are made once and kept, in memory or on disk."""

import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping

import numpy as np

Batch = dict[str, np.ndarray]

MEMORY_BYTES = 2**28  # what may be kept in memory


class Kept:
    """A pass of batches of one form; the second pass reads what the first one made."""

    def __init__(
        self,
        make: Callable[[], Iterator[Batch]],
        spec: Mapping[str, tuple[tuple[int, ...], np.dtype]],
        steps: int,
        folder: pathlib.Path | None = None,
        again: bool = True,
    ):
        """Nothing is made yet.

        Args:
          make: a pass; always gives the same.
          spec: name -> shape and dtype of a batch.
          steps: batches in a pass.
          folder: where to keep them on disk, a name that no other pass shares. None:
            in memory if they fit into MEMORY_BYTES, else nowhere.
          again: whether memory is to be spent on a second pass.
        """
        self._make, self._steps, self._folder = make, steps, folder
        self._forms = {
            name: ((steps, *form[0]), form[1]) for name, form in spec.items()
        }
        size = sum(
            np.prod(shape) * dtype.itemsize for shape, dtype in self._forms.values()
        )
        self._keep = folder is not None or (again and size <= MEMORY_BYTES)
        self._arrays: Batch | None = None

    def batches(self) -> Iterator[Batch]:
        """The pass, from what is kept if it is."""
        if self._arrays is None and self._folder and self._folder.is_dir():
            self._arrays = self._read(self._folder)
        if self._arrays is not None:
            for step in range(self._steps):
                yield {
                    name: np.array(kept[step]) for name, kept in self._arrays.items()
                }
        elif self._keep:
            yield from self._recorded()
        else:
            yield from self._make()

    def _recorded(self) -> Iterator[Batch]:
        """The pass made anew; kept if it is iterated to its end."""
        folder = self._folder and self._unfinished()
        arrays = self._new(folder)
        try:
            for step, batch in enumerate(self._make()):
                for name, kept in arrays.items():
                    kept[step] = batch[name]
                yield batch
            if folder:
                for kept in arrays.values():
                    kept.flush()
                self._keep_or_join(folder)
            self._arrays = arrays
        finally:
            if folder:
                shutil.rmtree(folder, ignore_errors=True)

    def _unfinished(self) -> pathlib.Path:
        """A folder of this process's own, beside the one that it will become."""
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        beside = {"prefix": f"{self._folder.name}.", "dir": self._folder.parent}
        return pathlib.Path(tempfile.mkdtemp(**beside))

    def _keep_or_join(self, folder: pathlib.Path) -> None:
        try:
            folder.rename(self._folder)
        except OSError:
            if not self._folder.is_dir():  # else another process was first
                raise

    def _new(self, folder: pathlib.Path | None) -> Batch:
        if folder is None:
            return {name: np.empty(*form) for name, form in self._forms.items()}
        return {
            name: np.lib.format.open_memmap(
                folder / f"{name}.npy", "w+", dtype=dtype, shape=shape
            )
            for name, (shape, dtype) in self._forms.items()
        }

    def _read(self, folder: pathlib.Path) -> Batch:
        arrays = {}
        for name, form in self._forms.items():
            arrays[name] = np.load(folder / f"{name}.npy", mmap_mode="r")
            if (arrays[name].shape, arrays[name].dtype) != form:
                raise ValueError(
                    f"{folder}/{name}.npy is not what this run would keep there; "
                    "delete the folder, or set data.eval_cache to another"
                )
        return arrays
