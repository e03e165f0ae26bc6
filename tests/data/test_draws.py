"""Uniforms: known splitmix64 outputs, unrelated streams; shuffles that shuffle."""

import numpy as np
import pytest
import tensorflow as tf

from beit_jax.data import draws

BITS = 2**64 - 1


def splitmix64(state, number):
    z = (state + (number + 1) * 0x9E3779B97F4A7C15) & BITS
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & BITS
    return z ^ (z >> 31)


def test_the_mixer_is_splitmix64():
    # The first output for seed 1234567, as published with the reference code.
    assert splitmix64(1234567, 0) == 6457827717110365317
    state = (1234567 + 0x9E3779B97F4A7C15) & BITS
    mixed = draws._mix(tf.constant([state], tf.uint64))
    assert int(mixed[0]) == 6457827717110365317


def test_numbers_can_be_drawn_in_any_pieces():
    draw = draws.stream(3, "test", tf.range(5, dtype=tf.int64))
    pieces = [draw(0, 3), draw(3, 1), draw(4, 6)]
    np.testing.assert_array_equal(draw(0, 10), np.concatenate(pieces, axis=1))


def test_one_example_draws_what_it_draws_in_a_stack():
    stack = draws.stream(3, "test", tf.constant([7, 8], tf.int64))(0, 4)
    one = draws.stream(3, "test", tf.constant(8, tf.int64))(0, 4)
    np.testing.assert_array_equal(stack[1], one)


def test_numbers_are_uniform_and_uncorrelated():
    u = draws.stream(0, "test", tf.range(10_000, dtype=tf.int64))(0, 8).numpy()
    assert u.min() >= 0 and u.max() < 1
    histogram = np.histogram(u, bins=20)[0] / u.size
    assert np.abs(histogram - 1 / 20).max() < 0.003
    between_numbers = np.corrcoef(u.T) - np.eye(8)
    between_neighbours = np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]
    assert np.abs(between_numbers).max() < 0.04
    assert abs(between_neighbours) < 0.04


def test_seeds_and_purposes_give_unrelated_streams():
    counter = tf.range(10_000, dtype=tf.int64)
    streams = [(0, "crop"), (1, "crop"), (0, "flip"), (-1, "crop"), (2**70, "crop")]
    u = np.stack([draws.stream(*s, counter)(0, 1).numpy()[:, 0] for s in streams[:4]])
    assert np.abs(np.corrcoef(u) - np.eye(4)).max() < 0.04
    draws.stream(*streams[4], counter)(0, 1)  # a seed beyond 64 bits is taken modulo


def test_shuffles_mix_a_sorted_source():
    """Labels of 40 epochs are as spread over batches as a random order makes them."""
    count, batch = 1000, 100
    position = tf.range(40 * count, dtype=tf.int64)
    order = draws.shuffled(position % count, count, 0, position // count).numpy()
    labels = (order * 10 // count).reshape(-1, batch)
    seen = np.stack([np.bincount(row, minlength=10) for row in labels])
    chi_squared = ((seen - 10) ** 2 / 10).sum(1).mean()
    assert abs(chi_squared - 9 * (1 - batch / count)) < 0.6
    in_place = (order.reshape(40, count) == np.arange(count)).sum(1)
    assert in_place.mean() < 2


@pytest.mark.parametrize("count", [1, 2, 10, 97])
def test_every_epoch_is_a_permutation_of_its_own(count):
    position = tf.range(count, dtype=tf.int64)
    orders = [
        draws.shuffled(position, count, 0, tf.fill([count], tf.constant(e, tf.int64)))
        for e in range(8)
    ]
    assert (np.sort(orders) == np.arange(count)).all()
    assert count < 10 or len(np.unique(orders, axis=0)) == 8
