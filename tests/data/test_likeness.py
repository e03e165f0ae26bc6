"""What looks alike is found, and what does not is not, by comparing few."""

import numpy as np
from PIL import Image, ImageEnhance

from beit_jax.data import likeness


def photo(seed: int) -> Image.Image:
    """A smooth random picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), np.uint8)
    return Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC)


def test_another_size_or_brightness_looks_alike_and_another_picture_does_not():
    image = photo(0)
    others = [image.resize((93, 71)), ImageEnhance.Brightness(image).enhance(0.8)]
    others += [photo(seed) for seed in range(1, 50)]
    hashes = np.array([likeness.of(one) for one in (image, *others)])
    found = likeness.pairs(hashes)
    assert {(0, 1), (0, 2)} <= set(found) <= {(0, 1), (0, 2), (1, 2)}


def test_pairs_are_those_whose_hashes_and_small_images_agree():
    rng = np.random.default_rng(0)
    size = likeness.BITS // 8
    hashes = rng.integers(0, 256, (300, size)).astype(np.uint8)
    small = np.arange(81) + np.zeros((300, 1), np.uint8)
    small[111] = small[111, ::-1]
    copies = ((7, 0), (8, 3), (9, likeness.MOST), (10, likeness.MOST + 1), (11, 0))
    for copy, bits in copies:
        flipped = np.zeros(likeness.BITS, bool)
        flipped[rng.permutation(likeness.BITS)[:bits]] = True
        hashes[copy + 100] = hashes[copy] ^ np.packbits(flipped)
    looks = np.concatenate([hashes, small.astype(np.uint8)], axis=1)
    assert likeness.pairs(looks) == [(7, 107), (8, 108), (9, 109)]


def test_equal_images_are_paired_with_the_first_and_plain_ones_with_none():
    plain = likeness.of(Image.new("RGB", (20, 30), "red"))
    hashes = np.array([plain, *[likeness.of(photo(0))] * 3, plain])
    assert likeness.pairs(hashes) == [(1, 2), (1, 3)]
