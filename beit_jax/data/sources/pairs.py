"""Images and their label maps, paired by the names of their files."""

import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from beit_jax.data.sources.base import BadExample, Info, Record, Source, digest
from beit_jax.data.sources.files import open_files
from beit_jax.data.sources.label_maps import Meaning
from beit_jax.data.sources.subset import Subset
from beit_jax.data.sources.suffixes import SUFFIXES, is_image
from beit_jax.ranges import Count, SubsetSeed

_SHOWN = 5  # names in a message
_LIST = ".txt"

Named = dict[str, str]  # what two names have in common -> the name


class Layout(NamedTuple):
    """Where images and label maps are; the folders may lie anywhere below a path.

    An image and its map have the same name, below their folders, but for an end and a
    suffix.

    Attributes:
      images: folder of the images; "": the path itself.
      maps: folder of the label maps.
      image_end: how the names of images end, before the suffix.
      map_end: the same of the label maps.
      listed: a text file that names the images that count, one a line: its first word,
        with folders and suffix or without; "": all count.
    """

    images: str
    maps: str
    image_end: str = ""
    map_end: str = ""
    listed: str = ""


class Pairs(Source):
    """What sources share that have a label map for each image."""

    def _keep(
        self,
        path: str,
        name: str,
        layouts: Sequence[Layout],
        class_names: tuple[str, ...],
        meaning: Meaning,
        subset: Subset,
    ) -> None:
        """Finds the pairs.

        Args:
          path: a folder or an archive.
          name: of the data set.
          layouts: the first that has images there is taken.

        Raises:
          ValueError: no images, no label maps, or a list that names others.
        """
        self._files = open_files(path, _may_count)
        self._root, self._meaning = os.path.expanduser(path).rstrip("/"), meaning
        there = self._files.names()
        found = [(one, *_find(there, one)) for one in layouts]
        layout, images, maps = next((f for f in found if f[1]), found[0])
        if not images or not maps:
            raise ValueError(_nothing(self._root, layouts, bool(images)))
        stems = sorted(images)
        if layout.listed:
            stems = self._listed(there, layout, images)
        if alone := sorted(maps.keys() - images.keys()):
            self.notes += (
                f"{self._root}: label maps without an image, which are left out: "
                f"{len(alone)}, {_brief(maps[stem] for stem in alone)}",
            )
        stems = [stems[i] for i in subset.keep(len(stems), None)]
        self._pairs = [(images[stem], maps.get(stem)) for stem in stems]
        told = (f"{stem}{layout.maps}" for stem in stems)
        self.info = Info(
            name,
            len(stems),
            class_names,
            digest([*told, *meaning.told], np.zeros(len(stems))),
        )

    def _listed(self, there: list[str], layout: Layout, images: Named) -> list[str]:
        """What the images have in common with their maps that a list names."""
        files = [name for name in there if f"/{name}".endswith(f"/{layout.listed}")]
        if not files:
            raise ValueError(
                f"{self._root} has no list {layout.listed!r} of its images"
            )
        text = self._files.read(min(files, key=len)).decode("utf-8-sig")
        named = [
            _stem(words[0], layout)
            for words in map(str.split, text.split("\n"))
            if words
        ]
        stems = [_whole_or_last(stem, images) for stem in named]
        missing = [
            n for n, stem in zip(named, stems, strict=True) if stem not in images
        ]
        if missing or not stems:
            told = f"{len(missing)} that are not there, {_brief(missing)}"
            raise ValueError(
                f"{self._root}/{layout.listed} names {told if missing else 'no images'}"
            )
        return stems

    def read(self, index: int) -> Record:
        image, labels = self._pairs[index]
        if labels is None:
            raise BadExample(f"{self.describe(index)} has no label map")
        return Record(
            self._files.read(image),
            label_map=self._meaning.of(self._files.read(labels)),
        )

    def describe(self, index: int) -> str:
        return f"{self._root}/{self._pairs[index][0]}"


class Segments(Pairs):
    """Images in one folder and their label maps in another, of any data set.

    A `.csv` or `.jsonl` that names each image and its label map is for source `list`.
    """

    def __init__(
        self,
        path: str,
        class_names: tuple,
        images: str = "images",
        maps: str = "masks",
        image_end: str = "",
        map_end: str = "",
        listed: str = "",
        labels: Mapping = (),
        colours: tuple = (),
        limit: Count = 0,
        subset_seed: SubsetSeed = 0,
        part: str = "",
    ):
        """Finds the pairs.

        Args:
          path: a folder or an archive.
          class_names: in the order of the numbers in the label maps.
          images, maps: the two folders below `path`; the same name in both is a pair.
          image_end, map_end: how names end before the suffix, "_mask" say, beside which
            they are the same.
          listed: a text file below `path` that names the images that count, one a line;
            empty: all count.
          labels: what the pixels of label maps mean, if not the numbers of classes:
            `reduce_zero_label`, `palette`, `ids`, `ignore` of label_maps.Meaning.
          colours: (r, g, b) of each class in pictures; empty: the palette or any.
          limit: keep this many random images in all; 0 = all.
          subset_seed: chooses them.
          part: "test" is every tenth image in the order of names, "train" all others.

        Raises:
          ValueError: no pairs, or a list that names what is not there.
        """
        names = tuple(map(str, class_names))
        if not names:
            raise ValueError(
                "source 'segments' needs class_names: what the numbers in its label "
                "maps are called"
            )
        meaning = Meaning.from_config(labels, names)
        layout = Layout(images, maps, image_end, map_end, listed)
        self.colours = tuple(map(tuple, colours)) or meaning.palette
        name = posixpath.basename(os.path.expanduser(path).rstrip("/"))
        subset = Subset(part, limit, seed=subset_seed)
        self._keep(path, name, [layout], names, meaning, subset)


def _may_count(name: str) -> bool:
    return is_image(name) or name.endswith(_LIST)


def _find(there: Sequence[str], layout: Layout) -> tuple[Named, Named]:
    """The images and the label maps of a layout, by what they have in common."""
    maps = _below(there, layout.maps, layout.map_end)
    taken = {*maps.values()} if layout.map_end else set()
    left = [name for name in there if name not in taken]
    return _below(left, layout.images, layout.image_end), maps


def _below(there: Iterable[str], folder: str, end: str) -> Named:
    """Images below the outermost folder called so, whose names have that end.

    Raises:
      ValueError: two that differ only in their suffix.
    """
    inner = f"/{folder}/" if folder else "/"
    parts = [f"/{name}".partition(inner) for name in there]
    tops = {top for top, inside, _ in parts if inside}
    outermost = min(tops, key=lambda top: (len(top), top), default=None)
    found: Named = {}
    for name, (top, _, below) in zip(there, parts, strict=True):
        stem, suffix = posixpath.splitext(below)
        if top != outermost or not is_image(suffix) or not stem.endswith(end):
            continue
        stem = stem.removesuffix(end)
        if stem in found:
            raise ValueError(
                f"{found[stem]} and {name} differ only in their suffix: which of them "
                "is meant, cannot be told; move one away"
            )
        found[stem] = name
    return found


def _stem(word: str, layout: Layout) -> str:
    """What a line of a list has in common with names of files."""
    stem, suffix = posixpath.splitext(word)
    stem = stem if is_image(suffix) else word
    _, inside, below = f"/{stem}".rpartition(f"/{layout.images}/")
    return (below if inside else stem).removesuffix(layout.image_end)


def _whole_or_last(stem: str, images: Named) -> str:
    return stem if stem in images else posixpath.basename(stem)


def _nothing(root: str, layouts: Sequence[Layout], images: bool) -> str:
    """That one of the two folders has nothing."""
    what = "label maps" if images else "images"
    places = [one.maps if images else one.images for one in layouts]
    return (
        f"no {what} at {root}: looked for {' or '.join(map(repr, places))} with "
        f"{', '.join(SUFFIXES)}"
    )


def _brief(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + ", …" * (len(names) > _SHOWN)
