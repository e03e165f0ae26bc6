"""Every file of the corpus is decoded as documented, or refused in words."""

import io

import numpy as np
import pytest
from PIL import Image

from beit_jax.data.ops import decode
from beit_jax.data.sources import BadExample
from tests.data import corpus

GOOD, BAD = corpus.good(), corpus.bad()


@pytest.mark.parametrize("name", GOOD)
def test_good_files_are_decoded_as_documented(name):
    data, want = GOOD[name]
    image = decode.to_rgb(decode.open_image(data))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(image, want)


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_words(name):
    data, sentence = BAD[name]
    with pytest.raises(BadExample, match=sentence):
        decode.to_rgb(decode.open_image(data))


def test_a_bomb_is_refused_by_its_header():
    assert len(BAD["bomb.png"][0]) < 145_000
    image = decode.open_image(BAD["bomb.png"][0], max_pixels=2**28)
    assert image.size == (12000, 12000)  # not decoded: the header is all that was read


def test_the_limit_can_be_raised_beyond_pillows_own():
    claim = corpus.png_header(20000, 20000)
    with pytest.raises(BadExample, match="20000x20000 is .*data.max_pixels allows"):
        decode.open_image(claim)
    assert decode.open_image(claim, max_pixels=2**30).size == (20000, 20000)


def test_arrays_are_images_already():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    np.testing.assert_array_equal(decode.to_rgb(decode.open_image(pixels)), pixels)


def test_exif_turns_an_image_only_when_asked_to():
    image = decode.open_image(GOOD["exif_turned.jpg"][0])
    assert decode.orientation(image) == 6
    assert decode.upright(image).size == image.size[::-1]
    assert decode.orientation(decode.open_image(GOOD["plain.jpg"][0])) == 1


def test_odd_exif_is_a_bad_example_only_where_it_is_asked_for():
    image = decode.open_image(GOOD["odd_exif.png"][0])
    with pytest.raises(BadExample, match="cannot be decoded"):
        decode.upright(image)


@pytest.mark.parametrize("mode", ["RGB", "I;16"])
def test_16_bits_are_told_before_they_are_cut(mode):
    deep = Image.fromarray(np.zeros((4, 4), np.uint16))
    data = corpus.encoded(deep if mode == "I;16" else Image.new(mode, (4, 4)), "PNG")
    assert decode.has_16_bits(decode.open_image(data)) == (mode == "I;16")


def labels(mode="L", size=(4, 3)):
    image = Image.new(mode, size, 3)
    if mode == "P":
        image.putpalette(range(60))
    return corpus.encoded(image, "PNG")


@pytest.mark.parametrize("mode", ["L", "P"])
def test_label_maps_keep_their_numbers(mode):
    made = decode.to_labels(labels(mode), (4, 3))
    assert (made.mode, made.getextrema()) == ("L", (3, 3))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (labels(size=(4, 4)), "label map is 4x4, its image 4x3"),
        (labels("RGB"), "mode RGB; it must have one channel"),
        (labels()[:45], "label map cannot be decoded"),
        (np.full((3, 4), 256), r"\(3, 4\) must be .* 0..255"),
        (np.zeros((3, 4, 1), int), r"\(3, 4, 1\) must be"),
    ],
)
def test_label_maps_that_do_not_fit_are_refused(data, message):
    with pytest.raises(BadExample, match=message):
        decode.to_labels(data, (4, 3))


def test_pillow_is_asked_for_the_stated_formats_only():
    eps = io.BytesIO()
    Image.new("RGB", (8, 8)).save(eps, "EPS")
    with pytest.raises(BadExample, match="no image that can be read"):
        decode.open_image(eps.getvalue())
