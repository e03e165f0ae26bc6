"""Image files in class folders, on disk or inside an archive."""

import array
import hashlib
import json
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from beit_jax.data.sources import splits
from beit_jax.data.sources.base import Info, Record, Source, check_unique, digest
from beit_jax.data.sources.files import open_files
from beit_jax.data.sources.index_cache import Arrays, cached
from beit_jax.data.sources.names import Names
from beit_jax.data.sources.subset import Subset
from beit_jax.data.sources.suffixes import SUFFIXES, Choice
from beit_jax.ranges import Count, SubsetSeed


class Folder(Source):
    """Images in path order; an image's class is the name of the folder it lies in.

    When all images lie in one folder there are no classes. An archive (.tar, .tar.gz,
    .tgz, .zip) gives the same examples as the folder it unpacks to.
    """

    def __init__(
        self,
        path: str,
        split: str = "",
        labels_per_class: Count = 0,
        subset_seed: SubsetSeed = 0,
        limit: Count = 0,
        part: str = "",
        class_names: tuple = (),
    ):
        """Lists the images.

        Args:
          path: a folder or an archive.
          split: only what lies below a folder of this name ("train", say).
          labels_per_class: keep this many random images of each class; 0 = all.
          subset_seed: chooses them, and those of `limit`.
          limit: keep this many random images in all; 0 = all.
          part: "test" is every tenth image in path order, "train" all others: for
            data without splits of its own; see `Subset`. Subsets are drawn within it.
          class_names: in the order of the labels; folders may be fewer. By default
            all folders in the order of their names.

        Raises:
          ValueError: nothing at `path`, no images, too few for the subset, or a folder
            that is none of the classes.
        """
        self._root = os.path.expanduser(path).rstrip("/")
        choice = Choice(split)
        self._files = open_files(path, choice)
        self._names = self._files.known()
        subset = Subset(part, limit, labels_per_class, subset_seed)
        asked = self._root, split, tuple(map(str, class_names)), subset
        index = _kept(
            self._files.stamped, asked, lambda: _index(self._names, choice, *asked)
        )
        self._places, self._labels = index["place"], index["label"]
        told = json.loads(index["told"].tobytes())
        self.notes = tuple(told["notes"])
        self.info = Info(
            posixpath.basename(self._root),
            len(self._places),
            tuple(told["class_names"]),
            told["digest"],
        )

    def _name(self, index: int) -> str:
        return self._names[int(self._places[index])]

    def read(self, index: int) -> Record:
        return Record(self._files.read(self._name(index)), int(self._labels[index]))

    def describe(self, index: int) -> str:
        return f"{self._root}/{self._name(index)}"

    def label_counts(self) -> np.ndarray:
        return np.bincount(self._labels, minlength=len(self.info.class_names))


def _kept(stamped: Sequence[str], asked: tuple, make: Callable[[], Arrays]) -> Arrays:
    """What `make` gives for what is asked, or gave before of the same files."""
    if not stamped:
        return make()
    words = repr((*asked, SUFFIXES)).encode(errors="surrogateescape")
    return cached(f"folder-{hashlib.sha256(words).hexdigest()[:16]}", stamped, make)


def _index(
    known: Names,
    choice: Choice,
    root: str,
    split: str,
    class_names: tuple[str, ...],
    subset: Subset,
) -> Arrays:
    """Where the images are among the names that are known, their labels, and in JSON
    what there is to tell."""
    places = array.array("q")
    names = Names(_chosen(known, choice, places))
    if not len(names):
        below = f" below a folder named {split!r}" if split else ""
        left = "".join(f". {note}" for note in choice.notes(root, ())[:1])
        raise ValueError(
            f"no images at {root}{below}; looked for {', '.join(SUFFIXES)}{left}"
        )
    apart = [] if split else splits.splits_of(names)
    labels, class_names = _classes(names, root, class_names)
    chosen = subset.keep(
        len(names), (lambda mine: labels[mine]) if class_names else None, class_names
    )
    labels = labels[chosen]
    below = len(splits.common_folder(names))  # the same data elsewhere is the same
    every = names if len(chosen) == len(names) else map(names.__getitem__, chosen)
    told = {
        "notes": choice.notes(root, names) + splits.notes(root, apart),
        "class_names": class_names,
        "digest": digest((name[below:] for name in every), labels),
    }
    return {
        "place": np.array(places, np.uint32)[chosen],
        "label": labels,
        "told": np.frombuffer(json.dumps(told).encode(), np.uint8),
    }


def _chosen(known: Names, choice: Choice, places: array.array) -> Iterator[str]:
    """The names that are chosen; notes in `places` which of those known they are."""
    for place, name in enumerate(known):
        if choice(name):
            places.append(place)
            yield name


def _classes(
    names: Names, root: str, class_names: tuple[str, ...]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels (n,) int32 and class names; zeros and () without classes.

    Args:
      class_names: as given, or () for all folders, sorted.
    """
    codes, folders = _numbered(map(posixpath.dirname, names))
    if len(folders) == 1 and not class_names:
        return np.zeros(len(names), np.int32), ()
    if set(folders) == {""}:
        raise ValueError(
            f"images at {root} lie in no class folders, and there are to be classes "
            f"({', '.join(class_names[:5])}{', …' * (len(class_names) > 5)}); put "
            "them into folders called so, or list them with labels; predict needs none"
        )
    if "" in folders:
        beside = names[int(np.argmax(codes == folders.index("")))]
        raise ValueError(
            f"images at {root} lie both beside and inside class folders; move "
            f"{beside!r} into one"
        )
    class_of = [posixpath.basename(folder) for folder in folders]
    class_names = class_names or tuple(sorted(set(class_of)))
    label_of = {name: label for label, name in enumerate(class_names)}
    if unknown := sorted(set(class_of) - label_of.keys()):
        raise ValueError(
            f"{root} has folders that are none of the {len(class_names)} classes "
            f"({', '.join(class_names[:5])}{', …' * (len(class_names) > 5)}): "
            f"{', '.join(unknown[:12])}{', …' * (len(unknown) > 12)}"
        )
    check_unique(class_names, set(class_of))
    return np.array([label_of[name] for name in class_of], np.int32)[codes], class_names


def _numbered(words: Iterable[str]) -> tuple[np.ndarray, list[str]]:
    """The words that there are, and of each word which of them it is."""
    known: dict[str, int] = {}
    codes = (known.setdefault(word, len(known)) for word in words)
    return np.fromiter(codes, np.int32), list(known)
