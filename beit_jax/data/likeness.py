"""Images that look alike, told by a hash of what they show: near-duplicates.

The hash has a bit for each step from a pixel to the next, of the image in grey at 8x8
(a "difference hash", down and across): it hardly changes with size, compression or
brightness. A mirrored or cropped copy is another image to it.
"""

import collections
import itertools
from collections.abc import Iterator

import numpy as np
from PIL import Image

SIDE = 8
BITS = 2 * SIDE * SIDE
_BANDS = 8  # of 16 bits: hashes that differ in fewer bits than these share one
MOST = _BANDS - 1  # bits in which images that look alike differ
_PLAIN = 8  # images with fewer steps up or down show nothing that could be compared
_COMPARED = 256  # of a band's equals, each with so many that follow it

Hash = np.ndarray  # (BITS / 8,) uint8


def of(image: Image.Image) -> Hash:
    """The hash of an RGB image."""
    grey = image.convert("L")
    size = SIDE + 1, SIDE + 1
    small = np.asarray(grey.resize(size, Image.Resampling.BOX), np.int16)
    across = small[:-1, 1:] > small[:-1, :-1]
    down = small[1:, :-1] > small[:-1, :-1]
    return np.packbits([across, down])


def pairs(hashes: np.ndarray) -> list[tuple[int, int]]:
    """Sorted (i, j), i < j, of (n, BITS / 8) hashes that differ in at most MOST bits.

    Each of several equals is paired with the first of them only, and images of (nearly)
    one colour with none. Only hashes of which a band agrees are compared.
    """
    if not len(hashes):
        return []
    counts = np.bitwise_count(hashes).sum(1)
    told = np.flatnonzero((counts >= _PLAIN) & (counts <= BITS - _PLAIN))
    first: dict[bytes, int] = {}
    found, single = set(), []
    for index in told.tolist():
        same = first.setdefault(hashes[index].tobytes(), index)
        if same == index:
            single.append(index)
        else:
            found.add((same, index))
    bits = [int.from_bytes(key) for key in first]  # in the order of `single`
    for one, other in _sharing_a_band(hashes[single]):
        if (bits[one] ^ bits[other]).bit_count() <= MOST:
            found.add((single[one], single[other]))
    return sorted(found)


def _sharing_a_band(hashes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of rows, i < j, of which a band agrees; some come several times."""
    for band in np.ascontiguousarray(hashes).view(np.uint16).T:
        equals = collections.defaultdict(list)
        for index, bits in enumerate(band.tolist()):
            equals[bits].append(index)
        for rows in equals.values():
            for place, one in enumerate(rows):
                for other in itertools.islice(rows, place + 1, place + 1 + _COMPARED):
                    yield one, other
