"""Handwritten digits that come inside scikit-learn: real data with no download."""

import numpy as np
from PIL import Image

from beit_jax.data.sources.base import Info, Record, Source, digest
from beit_jax.data.sources.subset import Subset
from beit_jax.ranges import Count, Length, SubsetSeed

_TRAIN = 1397


class Digits(Source):
    """1,797 grey 8x8 digits (UCI optdigits), enlarged to `size` and made RGB.

    The test split is the last 400 in scikit-learn's order, not a random draw: they
    come from other writers than most of the first 1,397, so that test accuracy is
    about new handwriting and lower than that of a random split.
    """

    def __init__(
        self,
        split: str = "train",
        size: Length = 32,
        labels_per_class: Count = 0,
        subset_seed: SubsetSeed = 0,
    ):
        """Loads and enlarges the split.

        Args:
          split: "train" (1,397) or "test" (400).
          size: side of the images in pixels.
          labels_per_class: keep this many random images of each class; 0 = all.
          subset_seed: chooses them.
        """
        grey, labels = load(split)
        subset = Subset(labels_per_class=labels_per_class, seed=subset_seed)
        chosen = subset.keep(len(labels), lambda mine: labels[mine])
        names = (f"{split} {number}" for number in chosen)
        self.info = Info(
            f"digits/{split}",
            len(chosen),
            tuple("0123456789"),
            digest(names, labels[chosen]),
        )
        self._images = enlarge(grey[chosen], size)
        self._labels = labels[chosen].tolist()

    def read(self, index: int) -> Record:
        return Record(self._images[index], self._labels[index])

    def describe(self, index: int) -> str:
        return f"image {index} of {self.info.name}"


def load(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Digits (n, 8, 8) in 0..16 and labels (n,) of "train" (1,397) or "test" (400).

    Raises:
      ValueError: no such split.
    """
    from sklearn.datasets import load_digits  # 1 s to import: only when used

    parts = {"train": slice(0, _TRAIN), "test": slice(_TRAIN, None)}
    if split not in parts:
        raise ValueError(f"no split {split!r} of digits; it has train, test")
    grey, labels = load_digits(return_X_y=True)
    return grey[parts[split]].reshape(-1, 8, 8), labels[parts[split]]


def enlarge(grey: np.ndarray, size: int) -> np.ndarray:
    """(n, 8, 8) in 0..16 -> (n, size, size, 3) uint8, bicubic."""
    levels = np.round(grey * (255 / 16)).astype(np.uint8)
    large = [
        np.asarray(
            Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
        )
        for image in levels
    ]
    return np.repeat(np.stack(large)[..., None], 3, axis=-1)
