"""What the quickstart does on own images: sizes, codes, labels, steps follow them."""

import collections
import os
import pathlib
import posixpath
import statistics
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from beit_jax import config as config_lib
from beit_jax.data import sources
from beit_jax.data.ops import decode
from beit_jax.data.sources import BadExample, Source, splits

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
GRID = 7  # tokens along a side, whatever the images are
PATCHES = (16, 8, 4)  # pixels of a token's side, largest first: views of 112, 56, 28
LOOKED_AT = 100  # images whose sides are looked at
LATENTS_PER_CODE = 64  # a code is learnt from so many patches at least
CODES = (32, 256)
LEAST_LABELS = 2
MOST_LABELS = 50  # a class: the question is what few labels are worth
MANY = 600  # images from which on the recipes' steps are taken whole
LEAST = 0.25  # of the steps, for few images
VIEWS_PER_LABEL = 80  # a labelled image is seen about so often
COPIED = 224  # pixels of the shorter side of smaller copies, twice a view's
LARGE = 2 * COPIED  # images from so many on are copied: to decode them takes long


class Plan(NamedTuple):
    """What is done on some images, and on which of them."""

    train: Mapping[str, Any]  # a source
    test: Mapping[str, Any]
    images: int  # to train on
    tests: int
    side: int  # of the images, in pixels: the median of the shorter ones
    patch: int
    codes: int
    classes: int  # 0: they have none
    labels: int  # a class; 0: all

    def told(self) -> str:
        """For a person, before it begins."""
        text = (
            f"{self.images} images to train on, {self.tests} held out, shorter sides "
            f"of {self.side} px: views of {self.patch * GRID} px, {GRID}x{GRID} tokens "
            f"of {self.patch}x{self.patch} px, {self.codes} codes, "
            f"{self.steps('tokenizer')} steps for them, {self.steps('pretrain')} of "
            "pre-training"
        )
        if not self.classes:
            return text
        return (
            f"{text}; {self.classes} classes, {self.steps('finetune')} steps of "
            f"fine-tuning on {self.labels} labels of each"
        )

    def steps(self, stage: str) -> int:
        """Fewer for fewer images; fine-tuning's follow the labelled ones."""
        recipe, share = RECIPES[stage], self.images / MANY
        if stage == "finetune":
            seen = recipe.steps * recipe.data.batch_size
            share = self.classes * self.labels * VIEWS_PER_LABEL / seen
        return round(recipe.steps * min(max(share, LEAST), 1))

    def fit(self, config: ConfigDict, stage: str, steps: bool = True) -> None:
        """Changes the recipe configs/photos_STAGE.py to fit the images.

        Args:
          steps: its number too; without, it stays as it is.
        """
        config.data.source = ConfigDict(self.train)
        config.data.eval_source = ConfigDict(self.test)
        config.model.image_size = self.patch * GRID
        config.model.patch_size = self.patch
        if steps:
            config.steps = self.steps(stage)
        if stage == "tokenizer":
            config.model.vocab = self.codes
        if stage == "finetune":
            config.data.source.labels_per_class = self.labels
            config.task.classes = self.classes


# Of configs/photos_*.py, which are for `MANY` images.
RECIPES = {
    stage: config_lib.load(CONFIGS / f"photos_{stage}.py")
    for stage in ("tokenizer", "pretrain", "finetune")
}


def plan(path: str, copies: pathlib.Path) -> Plan:
    """Looks at the images at `path`: a folder or an archive.

    Folders train and val or test are taken as splits; else every third image is held
    out.

    Args:
      copies: a folder for smaller copies, which are taken instead of large images and
        of those that are stored turned; what is there already is not made again.

    Raises:
      ValueError: images that cannot be used, or too few of a class to fine-tune on.
    """
    side, turned = _looks(sources.build({"name": "folder", "path": path}))
    if side >= LARGE or turned:
        _copy(path, copies)
        path, side = str(copies), min(side, COPIED)
    train, test = _sources(path)
    source = sources.build(train)
    names = source.info.class_names
    held_out = sources.build(test | {"class_names": names})  # a class may have none
    patch = next((p for p in PATCHES if side >= p * GRID), PATCHES[-1])
    images = source.info.num_examples
    return Plan(
        train,
        test | {"class_names": names},
        images,
        held_out.info.num_examples,
        side,
        patch,
        _codes(images),
        len(names),
        _labels(source) if names else 0,
    )


def _sources(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of training and of testing."""
    folder = {"name": "folder", "path": path}
    names = _files(sources.build(folder))
    there = splits.splits_of(names)
    train, test = (splits.pick(there, known) for known in (splits.TRAINS, splits.TESTS))
    if train and test:
        return folder | {"split": train}, folder | {"split": test}
    return folder | {"part": "train/3"}, folder | {"part": "test/3"}


def _files(source: Source) -> list[str]:
    return [source.describe(i) for i in range(source.info.num_examples)]


def _looks(source: Source) -> tuple[int, bool]:
    """The median of shorter sides in pixels, and whether some images are turned."""
    count = source.info.num_examples
    sides, turned = [], False
    for index in np.linspace(0, count - 1, min(count, LOOKED_AT)).astype(int):
        try:
            image = decode.open_image(source.read(int(index)).image)
            turned |= decode.orientation(image) != 1
        except BadExample:  # the run will tell
            continue
        sides.append(min(image.size))
    if not sides:
        raise ValueError(f"none of the images of {source.info.name} can be read")
    return int(statistics.median(sides)), turned


def _copy(path: str, copies: pathlib.Path) -> None:
    """Makes copies of all images of at most COPIED pixels, upright.

    Raises:
      BadExample: an image that cannot be used.
    """
    source = sources.build({"name": "folder", "path": path})
    root = os.path.expanduser(path).rstrip("/") + "/"

    def one(index: int) -> None:
        copy = copies / f"{source.describe(index).removeprefix(root)}.jpg"
        if copy.exists():
            return
        try:
            image = decode.open_image(source.read(index).image)
            image.draft("RGB", (2 * COPIED, 2 * COPIED))  # a JPEG at a fraction
            image = decode.upright(image)
        except BadExample as error:
            raise BadExample(f"{source.describe(index)}: {error}") from error
        scale = min(COPIED / min(image.size), 1)
        size = [max(round(side * scale), 1) for side in image.size]
        copy.parent.mkdir(parents=True, exist_ok=True)
        part = copy.with_suffix(".part")
        image.resize(size, Image.Resampling.LANCZOS).save(part, "JPEG", quality=95)
        part.rename(copy)  # what is there is whole, also after a kill

    for note in source.notes:
        print(f"note: {note}")
    print(f"making copies of {COPIED} px, upright, of {path} in {copies}", flush=True)
    with ThreadPoolExecutor() as threads:
        collections.deque(threads.map(one, range(source.info.num_examples)), maxlen=0)


def _codes(images: int) -> int:
    """A power of 2."""
    wanted = max(images * GRID**2 // LATENTS_PER_CODE, 1)
    return min(max(2 ** (wanted.bit_length() - 1), CODES[0]), CODES[1])


def _labels(source: Source) -> int:
    """Half of a usual class's images, but no more than the smallest has."""
    counts = collections.Counter(
        posixpath.basename(posixpath.dirname(file)) for file in _files(source)
    )
    half = int(statistics.median(counts.values())) // 2
    fewest = min(source.info.class_names, key=lambda name: counts[name])
    if counts[fewest] < LEAST_LABELS:
        raise ValueError(
            f"class {fewest!r} has {counts[fewest]} images to train on, of "
            f"{source.info.num_examples} in all; fine-tuning wants {LEAST_LABELS} of "
            "each: add some, or leave its folder out"
        )
    return max(min(half, counts[fewest], MOST_LABELS), LEAST_LABELS)
