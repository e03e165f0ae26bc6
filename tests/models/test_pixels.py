import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.models.pixels import PIXEL_SPACES

EVERY_VALUE = jnp.arange(256, dtype=jnp.uint8)[:, None].repeat(3, axis=1)


@pytest.mark.parametrize("name", PIXEL_SPACES)
def test_bytes_survive_the_round_trip(name):
    space = PIXEL_SPACES[name]
    there = space.to_float(EVERY_VALUE)
    assert there.dtype == jnp.float32
    np.testing.assert_array_equal(space.to_uint8(there), EVERY_VALUE)


def test_known_values():
    half = PIXEL_SPACES["half"].to_float(EVERY_VALUE)
    np.testing.assert_allclose(half[jnp.array([0, 255])], [[-1] * 3, [1] * 3])
    imagenet = PIXEL_SPACES["imagenet"].to_float(EVERY_VALUE)
    np.testing.assert_allclose(imagenet[0, 0], -0.485 / 0.229, rtol=1e-6)


def test_values_out_of_range_are_clipped():
    wild = jnp.array([[-7.0, 0.0, 7.0]])
    np.testing.assert_array_equal(PIXEL_SPACES["half"].to_uint8(wild), [[0, 128, 255]])


def test_dalles_map_keeps_off_black_and_white():
    """0.8 x + 0.1, the logit-Laplace map of the DALL-E tokenizer."""
    mapped = PIXEL_SPACES["dalle"].to_float(EVERY_VALUE)
    want = 0.8 * EVERY_VALUE / 255 + 0.1
    np.testing.assert_allclose(mapped, want, rtol=1e-6)


def test_floats_in_levels_are_mapped_like_bytes():
    space = PIXEL_SPACES["imagenet"]
    levels = EVERY_VALUE.astype(jnp.float32)
    np.testing.assert_array_equal(space.to_float(levels), space.to_float(EVERY_VALUE))
