"""A colour for each class, so that neighbouring numbers are told apart."""

import numpy as np

COLOURS = 256  # after which they begin again


def voc(numbers: np.ndarray) -> np.ndarray:
    """Numbers (N,) -> (N, 3) uint8 levels, by Pascal VOC's rule: 0 is black.

    The lowest three bits of a number are the highest of red, green and blue, and so on.
    """
    numbers = np.asarray(numbers)[:, None] % COLOURS
    channels = np.arange(3)
    levels = ((numbers >> 3 * i + channels) & 1 for i in range(8))
    return sum(level << 7 - i for i, level in enumerate(levels)).astype(np.uint8)


def palette() -> np.ndarray:
    """(COLOURS, 3) uint8, VOC's of the number above each: black is but the last."""
    return voc(np.arange(1, COLOURS + 1))
