"""Images that look alike, told by a hash of what they show: near-duplicates.

The hash has a bit for each step from a pixel to the next, of the image in grey at 8x8
(a "difference hash", down and across): it hardly changes with size, compression or
brightness. Where hashes agree, the small images must, too: of simple pictures many have
the same steps. A mirrored or cropped copy is another image to both.
"""

import collections
import itertools
from collections.abc import Iterator

import numpy as np
from PIL import Image

SIDE = 8
BITS = 2 * SIDE * SIDE
_BYTES = BITS // 8
_BANDS = 8  # of 16 bits: hashes that differ in fewer bits than these share one
MOST = _BANDS - 1  # bits in which images that look alike differ
LEAST = 0.99  # correlation of the small images
_COMPARED = 256  # of a band's equals, each with so many that follow it

Look = np.ndarray  # (BITS / 8 + (SIDE + 1)**2,) uint8: a hash, a small image


def of(image: Image.Image) -> Look:
    """How an RGB image looks."""
    size = SIDE + 1, SIDE + 1
    small = np.asarray(image.convert("L").resize(size, Image.Resampling.BOX))
    across = small[:-1, 1:] > small[:-1, :-1]
    down = small[1:, :-1] > small[:-1, :-1]
    return np.concatenate([np.packbits([across, down]), small.ravel()])


def pairs(looks: np.ndarray) -> list[tuple[int, int]]:
    """Sorted (i, j), i < j, of the rows of `looks` (n, bytes) that are alike.

    Each of several with one hash is compared with the first of them only. Others are
    compared where a band of their hashes agrees, so that time grows little faster
    than n. Images of one colour are like none.
    """
    if not len(looks):
        return []
    hashes, small = looks[:, :_BYTES], looks[:, _BYTES:].astype(np.float32)
    small -= small.mean(axis=1, keepdims=True)
    small /= np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6)
    first: dict[bytes, int] = {}
    found = set()
    for index, hashed in enumerate(hashes):
        same = first.setdefault(hashed.tobytes(), index)
        if same != index:
            found.add((same, index))
    bits, single = [int.from_bytes(key) for key in first], [*first.values()]
    for one, other in _sharing_a_band(hashes[single]):
        if (bits[one] ^ bits[other]).bit_count() <= MOST:
            found.add((single[one], single[other]))
    return sorted(pair for pair in found if small[pair[0]] @ small[pair[1]] >= LEAST)


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
