"""Handwritten digits that come inside scikit-learn: real data with no download."""

import numpy as np
import tensorflow as tf
from PIL import Image

from beit_jax.data.sources.base import Info, few_per_class

_TRAIN = 1397


class Digits:
    """1,797 grey 8x8 digits (UCI optdigits), enlarged to `size` and made RGB.

    The test split is the last 400 in scikit-learn's order, not a random draw: they
    come from other writers than most of the first 1,397, so that test accuracy is
    about new handwriting and lower than that of a random split.
    """

    stacked = True

    def __init__(
        self,
        split: str = "train",
        size: int = 32,
        labels_per_class: int = 0,
        subset_seed: int = 0,
    ):
        """Loads and enlarges the split.

        Args:
          split: "train" (1,397) or "test" (400).
          size: side of the images in pixels.
          labels_per_class: keep this many random images of each class; 0 = all.
          subset_seed: chooses them.
        """
        from sklearn.datasets import load_digits  # 1 s to import: only when used

        parts = {"train": slice(0, _TRAIN), "test": slice(_TRAIN, None)}
        if split not in parts:
            raise ValueError(f"no split {split!r} of digits; it has train, test")
        grey, labels = load_digits(return_X_y=True)
        grey, labels = grey[parts[split]], labels[parts[split]]
        if labels_per_class:
            chosen = few_per_class(labels, labels_per_class, subset_seed)
            grey, labels = grey[chosen], labels[chosen]
        self.info = Info(f"digits/{split}", len(labels), tuple("0123456789"))
        self._images = tf.constant(_enlarge(grey.reshape(-1, 8, 8), size))
        self._labels = tf.constant(labels, tf.int32)

    def read(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            "image": tf.gather(self._images, index),
            "label": tf.gather(self._labels, index),
        }

    def describe(self, index: int) -> str:
        return f"image {index} of {self.info.name}"


def _enlarge(grey: np.ndarray, size: int) -> np.ndarray:
    """(n, 8, 8) in 0..16 -> (n, size, size, 3) uint8, bicubic."""
    levels = np.round(grey * (255 / 16)).astype(np.uint8)
    large = [
        np.asarray(
            Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
        )
        for image in levels
    ]
    return np.repeat(np.stack(large)[..., None], 3, axis=-1)
