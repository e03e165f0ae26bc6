"""A colour for each class, so that neighbouring numbers are told apart."""

import numpy as np

COLOURS = 256  # after which they begin again


def palette() -> np.ndarray:
    """(COLOURS, 3) uint8 levels; none of them is black, but the last.

    Those of the PASCAL VOC, whose first, black, is last here: bit i of a number goes to
    bit 7 - i // 3 of colour i % 3.
    """
    numbers, colours = np.arange(1, COLOURS + 1) % COLOURS, np.zeros((COLOURS, 3), int)
    for bit in range(8):
        colours[:, bit % 3] |= (numbers >> bit & 1) << (7 - bit // 3)
    return colours.astype(np.uint8)
