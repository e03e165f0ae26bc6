"""Mixtures: exact shares, complete epochs of every part, the parts one by one."""

import numpy as np
import pytest
import tensorflow as tf
from ml_collections import ConfigDict

from beit_jax.data import sources
from beit_jax.data.sources.mixture import _picks


def mixture(sizes, **settings):
    parts = [
        {"name": "synthetic", "num_examples": n, "seed": i} for i, n in enumerate(sizes)
    ]
    return sources.build({"name": "mixture", "parts": parts, **settings})


def order(source, start, stop, seed=0):
    return source.order(seed, tf.range(start, stop, dtype=tf.int64)).numpy()


def part_of(indices, sizes):
    return np.searchsorted(np.cumsum(sizes), indices, side="right")


@pytest.mark.parametrize(
    ("weights", "period", "shares"),
    [
        ((3, 1), 4, [3, 1]),
        ((0.7, 0.3), 10, [7, 3]),
        ((1 / 3, 2 / 3), 3, [1, 2]),
        ((0.1234, 0.8766), 1000, [123, 877]),
        ((), 3, [2, 1]),
    ],
)
def test_shares_are_exact_in_every_period(weights, period, shares):
    sizes = (20, 10)
    source = mixture(sizes, weights=weights)
    assert sum(source.picks) == period
    for start in range(0, 3 * period, period):
        parts = part_of(order(source, start, start + period), sizes)
        assert np.bincount(parts).tolist() == shares


def test_each_part_shows_each_example_once_in_its_own_epoch():
    sizes = (20, 7)
    source = mixture(sizes, weights=(3, 1))
    shown = order(source, 0, 4 * 140)  # whole periods and whole epochs of both
    counts = np.bincount(shown, minlength=27)
    assert (counts[:20] == 3 * 140 / 20).all() and (counts[20:] == 140 / 7).all()


def test_by_size_every_example_comes_once_an_epoch():
    source = mixture((20, 7, 3))
    for epoch in range(3):
        assert sorted(order(source, 30 * epoch, 30 * epoch + 30)) == list(range(30))


def test_one_can_begin_anywhere_in_the_order():
    source = mixture((20, 7), weights=(3, 1))
    np.testing.assert_array_equal(order(source, 0, 100)[90:], order(source, 90, 100))
    assert (order(source, 10**12, 10**12 + 8) < 27).all()


def test_periods_and_seeds_differ():
    source = mixture((20, 20), weights=(1, 1))
    halves = order(source, 0, 40).reshape(2, 20)
    assert set(halves[0]) != set(halves[1])
    assert (order(source, 0, 40, seed=1) != order(source, 0, 40)).any()
    twins = order(source, 0, 400)  # parts of one size have unrelated orders
    assert (twins[twins < 20][:20] != twins[twins >= 20][:20] - 20).any()


def test_the_order_works_in_a_graph_on_one_and_on_many():
    source = mixture((20, 7), weights=(3, 1))
    in_graph = tf.function(lambda c: source.order(7, c))
    counter = tf.constant([3, 60, 149, 0], tf.int64)
    np.testing.assert_array_equal(in_graph(counter), source.order(7, counter))
    assert in_graph(counter[1]) == in_graph(counter)[1]


def test_evaluation_sees_the_parts_one_after_another():
    digits = {"name": "digits", "split": "test"}
    train = {**digits, "split": "train"}
    source = sources.build({"name": "mixture", "parts": [digits, train]})
    assert source.info.num_examples == 1797
    first, last = sources.build(digits), sources.build(train)
    for index, part, inner in ((0, first, 0), (399, first, 399), (400, last, 0)):
        np.testing.assert_array_equal(source.read(index).image, part.read(inner).image)
        assert source.describe(index) == part.describe(inner)


def test_a_mixture_may_be_a_part_of_another():
    inner = {
        "name": "mixture",
        "parts": [{"name": "synthetic", "num_examples": n} for n in (4, 5)],
    }
    parts = [inner, {"name": "synthetic", "num_examples": 3}]
    source = sources.build({"name": "mixture", "parts": parts})
    assert sorted(order(source, 0, 12)) == list(range(12))


def test_a_config_of_a_mixture_builds_it():
    parts = [{"name": "synthetic", "num_examples": n} for n in (4, 5)]
    config = ConfigDict({"name": "mixture", "parts": parts, "weights": [1, 3]})
    assert sources.build(config).picks == [1, 3]
    assert sources.build(ConfigDict(config.to_dict()).copy_and_resolve_references())


def test_the_digest_depends_on_the_parts_and_their_order():
    digests = {mixture(s).info.digest for s in ((4, 5), (5, 4), (4, 6), (4,))}
    assert len(digests) == 4


def test_without_labels_parts_may_differ_in_classes():
    parts = [{"name": "digits"}, {"name": "synthetic"}]
    source = sources.build({"name": "mixture", "parts": parts, "labels": False})
    assert source.info.class_names == () and source.read(1398).label is None
    with pytest.raises(
        ValueError, match=r"10 classes \(0, 1, 2, \.\.\.\) and 4 classes"
    ):
        sources.build({"name": "mixture", "parts": parts})


def test_picks_are_the_nearest_thousandths_when_no_short_period_is_exact():
    assert _picks((0.12345, 0.6, 0.27655), (1, 1, 1)) == [123, 600, 277]
    assert _picks((), (50_000, 10_000)) == [5, 1]
    assert _picks((2.0, 1), (1, 1)) == [2, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": (1,)}, "1 weights for a mixture of 2 parts"),
        ({"weights": (1, 0)}, "weight 0 of a mixture must be a number above 0"),
        ({"weights": (1, float("nan"))}, "weight nan"),
        ({"weights": (1, "2")}, "weight '2'"),
        ({"weights": (1, 1e-9)}, "weight 1e-09 .* at least one of 1000 picks"),
        ({"parts": []}, "needs parts"),
        ({"parts": [{"name": "digit"}]}, "no 'digit'"),
        ({"parts": ["digits"]}, "part 'digits' .* settings"),
    ],
)
def test_errors_name_value_and_rule(settings, message):
    parts = [{"name": "synthetic"}, {"name": "synthetic"}]
    with pytest.raises(ValueError, match=message):
        sources.build({"name": "mixture", "parts": parts, **settings})
