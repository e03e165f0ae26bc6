"""Image files in class folders, on disk or inside a tar archive."""

import os
import pathlib
import tarfile
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from beit_jax.data.sources.base import Info, few_per_class

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
ARCHIVES = (".tar", ".tar.gz", ".tgz")


class Folder:
    """Images in path order; an image's class is the name of the folder it lies in.

    When all images lie in one folder there are no classes. A .tar, .tar.gz or .tgz
    gives the same examples as the folder it unpacks to; its images stay in memory.
    """

    stacked = False

    def __init__(
        self,
        path: str,
        split: str = "",
        labels_per_class: int = 0,
        subset_seed: int = 0,
        limit: int = 0,
        part: str = "",
    ):
        """Lists the images.

        Args:
          path: a folder or an archive.
          split: only what lies below a folder of this name ("train", say).
          labels_per_class: keep this many random images of each class; 0 = all.
          subset_seed: chooses them, and those of `limit`.
          limit: keep this many random images in all; 0 = all.
          part: "test" is every tenth image in path order, "train" all others: for
            data without splits of its own. Subsets are drawn within the part.

        Raises:
          ValueError: nothing at `path`, no images, or too few for the subset.
        """
        root = pathlib.Path(path).expanduser()
        if root.is_dir():
            files = dict.fromkeys(_files_below(root))
        elif root.is_file() and root.name.lower().endswith(ARCHIVES):
            files = _archive_members(root)
        else:
            raise ValueError(
                f"no folder or archive ({', '.join(ARCHIVES)}) at path={str(path)!r}"
            )
        names = sorted(name for name in files if _is_image(name, split))
        if not names:
            below = f" below a folder named {split!r}" if split else ""
            raise ValueError(
                f"no images at {root}{below}; looked for {', '.join(SUFFIXES)}"
            )
        labels, class_names = _classes(names, root)
        mine = _part(len(names), part)
        names, labels = [names[i] for i in mine], labels[mine]
        chosen = _choose(labels, class_names, labels_per_class, limit, subset_seed)
        names = [names[i] for i in chosen]
        self.info = Info(root.name, len(names), class_names)
        self._names = [str(root / name) for name in names]
        self._in_memory = root.is_file()
        self._files = tf.constant(
            [files[name] for name in names] if self._in_memory else self._names
        )
        self._labels = tf.constant(labels[chosen])

    def read(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        file = tf.gather(self._files, index)
        return {
            "image": file if self._in_memory else tf.io.read_file(file),
            "label": tf.gather(self._labels, index),
        }

    def describe(self, index: int) -> str:
        return self._names[index]


def _files_below(root: pathlib.Path) -> Iterator[str]:
    """Paths relative to `root`; class folders may be links."""
    for folder, _, names in os.walk(root, followlinks=True):
        for name in names:
            yield pathlib.Path(folder, name).relative_to(root).as_posix()


def _archive_members(path: pathlib.Path) -> dict[str, bytes]:
    """Bytes of the image files by name. Nothing is unpacked to disk."""
    with tarfile.open(path, "r|*") as archive:
        return {
            str(pathlib.PurePosixPath(member.name)): archive.extractfile(member).read()
            for member in archive
            if member.isfile() and _is_image(member.name)
        }


def _is_image(name: str, split: str = "") -> bool:
    path = pathlib.PurePath(name)
    hidden = path.name.startswith(".")  # macOS leaves ._name.jpg beside name.jpg
    right_split = not split or split in path.parts[:-1]
    return path.suffix.lower() in SUFFIXES and not hidden and right_split


def _classes(
    names: list[str], root: pathlib.Path
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels (n,) int32 and class names, sorted; zeros and () without classes."""
    folders = [pathlib.PurePath(name).parent for name in names]
    if len(set(folders)) == 1:
        return np.zeros(len(names), np.int32), ()
    if pathlib.PurePath() in folders:
        raise ValueError(
            f"images at {root} lie both beside and inside class folders; move "
            f"{names[folders.index(pathlib.PurePath())]!r} into one"
        )
    class_names, labels = np.unique(
        [folder.name for folder in folders], return_inverse=True
    )
    return labels.astype(np.int32), tuple(class_names.tolist())


def _part(count: int, part: str) -> np.ndarray:
    """Sorted indices of a part of `count` images."""
    if part not in ("", "train", "test"):
        raise ValueError(f"part={part!r} of a folder must be train, test or empty")
    tenth = np.arange(count) % 10 == 9
    mine = np.flatnonzero({"": tenth | True, "train": ~tenth, "test": tenth}[part])
    if not len(mine):
        raise ValueError(f"{count} images are too few to hold out every tenth")
    return mine


def _choose(
    labels: np.ndarray,
    class_names: tuple[str, ...],
    labels_per_class: int,
    limit: int,
    seed: int,
) -> np.ndarray:
    """Sorted indices of the examples to keep."""
    if labels_per_class and limit:
        raise ValueError("give labels_per_class or limit, not both")
    if labels_per_class:
        if not class_names:
            raise ValueError("labels_per_class needs class folders; there are none")
        return few_per_class(labels, labels_per_class, seed)
    everything = np.arange(len(labels))
    if not limit:
        return everything
    return np.sort(np.random.RandomState(seed).permutation(everything)[:limit])
