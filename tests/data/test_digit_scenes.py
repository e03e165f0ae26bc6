"""Scenes of real digits over real photographs, and their label maps."""

import numpy as np
import pytest

from beit_jax.data import sources
from beit_jax.data.sources import digit_scenes


def build(**settings):
    return sources.build({"name": "digit_scenes", **settings})


def test_a_scene_is_a_function_of_seed_and_index():
    one, other = build(), build(num_examples=3)
    for index in (2, 0):
        made, again = one.read(index), other.read(index)
        np.testing.assert_array_equal(made.image, again.image)
        np.testing.assert_array_equal(made.label_map, again.label_map)
        assert (build(seed=1).read(index).image != made.image).any()
    assert made.image.shape == (96, 96, 3) and made.image.dtype == np.uint8


@pytest.mark.parametrize("split", ["train", "test"])
def test_what_is_not_a_digits_is_the_photograph_untouched(split):
    source = build(split=split, size=64)
    seen = set()
    for index in range(12):
        record = source.read(index)
        drawn = digit_scenes.uniforms(0, source._first + index, 4)
        untouched = (record.image == source._ground(drawn)).all(-1)
        assert untouched[record.label_map == 0].all()
        assert untouched[record.label_map > 0].mean() < 0.05
        seen |= {*np.unique(record.label_map).tolist()}
    assert {0} < seen <= {*range(11)}


def test_splits_share_neither_digits_nor_pixels():
    train, test = build(split="train"), build(split="test")
    assert (len(train._grey), len(test._grey)) == (1397, 400)
    parts = [{*range(640)[digit_scenes._COLUMNS[s]]} for s in ("train", "test")]
    assert not set.intersection(*parts)
    assert (train.read(0).label_map != test.read(0).label_map).any()
    with pytest.raises(
        ValueError, match="no split 'val' of digits; it has train, test"
    ):
        build(split="val")
