"""What a source of examples is, and the subsets that all of them offer."""

from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf


class Info(NamedTuple):
    """Facts about a source; `class_names` is empty when there are no labels."""

    name: str
    num_examples: int
    class_names: tuple[str, ...]


class Source(Protocol):
    """Examples that can be read by index; the pipeline shuffles and decodes.

    Attributes:
      info: facts.
      stacked: all images have one size, and `read` takes (B,) indices too and returns
        stacked images. The pipeline then works on whole batches, far faster.
    """

    info: Info
    stacked: bool

    def read(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """Example `index`, an int64 in [0, num_examples), in graph mode.

        Returns:
          image: (H, W, 3) uint8, or a string scalar with an encoded image.
          label: int32 in [0, C); 0 when there are no classes.
        """

    def describe(self, index: int) -> str:
        """The example's name in error messages: its file, say."""


def few_per_class(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Sorted indices of `count` random examples of each class.

    For one seed, the choice for a smaller count is part of that for a larger one.

    Raises:
      ValueError: a class has fewer examples.
    """
    # RandomState, because numpy promises that its numbers never change.
    order = np.random.RandomState(seed).permutation(len(labels))
    chosen = []
    for label in np.unique(labels):
        members = order[labels[order] == label]
        if len(members) < count:
            raise ValueError(
                f"labels_per_class={count}, but class {label} has {len(members)} images"
            )
        chosen.append(members[:count])
    return np.sort(np.concatenate(chosen))
