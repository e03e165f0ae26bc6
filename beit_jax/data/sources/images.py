"""Images at paths that a person names: folders, archives, single files."""

import pathlib
import posixpath
from collections.abc import Sequence

import numpy as np

from beit_jax.data.sources.base import Info, Record, Source, digest
from beit_jax.data.sources.files import Files, is_archive, open_files
from beit_jax.data.sources.suffixes import SUFFIXES, Choice, is_image
from beit_jax.stores import is_remote


class Images(Source):
    """Images without labels, in the order in which their paths are given.

    A folder or an archive stands for all images below it, in path order. Any other file
    is taken for an image, whatever its name.
    """

    def __init__(self, paths: Sequence[str]):
        """Lists the images.

        Raises:
          ValueError: nothing at a path, or no images below it.
        """
        self._places: list[tuple[str, Files, str]] = []
        for path in paths:
            choice = Choice()
            root, files, names = _open(path, choice)
            self._places += [(root, files, name) for name in names]
            self.notes += choice.notes(root, names)[:1]  # there are no classes
        count = len(self._places)
        if not count:
            raise ValueError("no images: no path is given")
        names = map(self.describe, range(count))
        self.info = Info("images", count, (), digest(names, np.zeros(count)))

    def read(self, index: int) -> Record:
        _, files, name = self._places[index]
        return Record(files.read(name))

    def describe(self, index: int) -> str:
        root, _, name = self._places[index]
        return name if root == "." else posixpath.join(root, name)


def _open(path: str, choice: Choice) -> tuple[str, Files, list[str]]:
    """What holds the images at `path`, and their names in it."""
    if not is_remote(path):
        path = str(pathlib.Path(path).expanduser())
    if _is_single(path):
        folder, name = posixpath.split(path)
        folder = folder or "."
        return folder, open_files(folder, choice), [name]
    files = open_files(path, choice)
    names = files.names()
    if not names:
        raise ValueError(f"no images at {path}; looked for {', '.join(SUFFIXES)}")
    return path, files, names


def _is_single(path: str) -> bool:
    """Whether a path is of a file that is no archive; of a bucket's, its name tells."""
    if is_remote(path):
        return is_image(path)
    file = pathlib.Path(path)
    if not file.exists():
        raise ValueError(f"there is no file, folder or archive {path!r}")
    return file.is_file() and not is_archive(file)
