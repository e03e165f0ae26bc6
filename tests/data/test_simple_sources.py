"""Digits and synthetic images, and what all sources share."""

import concurrent.futures

import numpy as np
import pytest
import tensorflow as tf

from beit_jax.data import sources
from beit_jax.data.sources.base import Source, digest


def read_all(source):
    records = [source.read(i) for i in range(source.info.num_examples)]
    return np.stack([r.image for r in records]), np.array([r.label for r in records])


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_images_are_rgb_bytes_and_labels_are_classes(name):
    source = sources.build({"name": name, "size": 16})
    images, labels = read_all(source)
    assert images.shape[1:] == (16, 16, 3) and images.dtype == np.uint8
    assert set(labels) == set(range(len(source.info.class_names)))
    record = source.read(0)
    assert record.boxes is record.classes is record.masks is None and not record.more


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_eight_threads_read_what_one_does(name):
    source = sources.build({"name": name})
    images, _ = read_all(source)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        read = list(threads.map(source.read, range(source.info.num_examples)))
    np.testing.assert_array_equal(np.stack([r.image for r in read]), images)


def test_digits_are_sklearns_in_order_split_at_1397():
    from sklearn.datasets import load_digits

    train, test = (
        sources.build({"name": "digits", "split": s, "size": 8})
        for s in ("train", "test")
    )
    assert (train.info.num_examples, test.info.num_examples) == (1397, 400)
    grey, labels = load_digits(return_X_y=True)
    first = test.read(0)
    assert first.label == labels[1397]
    levels = first.image[..., 0].reshape(-1)
    np.testing.assert_array_equal(levels, np.round(grey[1397] * 255 / 16))


def test_digits_keep_the_asked_labels_per_class():
    few = sources.build({"name": "digits", "labels_per_class": 5})
    assert (np.bincount(read_all(few)[1]) == 5).all()


def test_synthetic_classes_are_easily_told_apart():
    """Each image is nearest in mean colour to its own class."""
    images, labels = read_all(sources.build({"name": "synthetic", "num_examples": 64}))
    colour = images.mean((1, 2))
    colour /= np.linalg.norm(colour, axis=-1, keepdims=True)
    centres = np.stack([colour[labels == c].mean(0) for c in range(4)])
    assert ((colour @ centres.T).argmax(-1) == labels).all()
    assert len({image.tobytes() for image in images}) == 64


def test_more_synthetic_images_begin_with_the_same_and_seeds_differ():
    few, many, other = (
        sources.build({"name": "synthetic", "num_examples": n, "seed": s})
        for n, s in ((5, 3), (9, 3), (5, 4))
    )
    for index in range(5):
        np.testing.assert_array_equal(few.read(index).image, many.read(index).image)
        assert (few.read(index).image != other.read(index).image).any()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"name": "digits"}, {"name": "digits", "split": "test"}),
        ({"name": "digits"}, {"name": "digits", "labels_per_class": 9}),
        ({"name": "synthetic"}, {"name": "synthetic", "seed": 1}),
        ({"name": "synthetic"}, {"name": "synthetic", "num_examples": 65}),
        ({"name": "synthetic"}, {"name": "synthetic", "num_classes": 5}),
    ],
)
def test_other_examples_have_another_digest_and_equal_ones_the_same(one, other):
    assert sources.build(one).info.digest == sources.build(one).info.digest
    assert sources.build(one).info.digest != sources.build(other).info.digest


def test_the_digest_depends_on_names_labels_and_order():
    names, labels = ["a", "b", "c"], np.array([0, 1, 1])
    digests = {
        digest(names, labels),
        digest(["a", "b", "d"], labels),
        digest(["ab", "", "c"], labels),
        digest(names, np.array([0, 1, 2])),
        digest(["a", "c", "b"], labels),
        digest(names[:2], labels[:2]),
    }
    assert len(digests) == 6
    assert digest(iter(names), labels.astype(np.int32)) == digest(names, labels)


def test_every_epoch_of_the_order_is_another_permutation():
    source = sources.build({"name": "synthetic", "num_examples": 50})
    order = source.order(7, tf.range(150, dtype=tf.int64)).numpy().reshape(3, 50)
    assert all(sorted(epoch) == list(range(50)) for epoch in order)
    assert len({tuple(epoch) for epoch in order}) == 3
    assert order.dtype == np.int64


def test_the_order_works_in_a_graph_on_one_and_on_many():
    source = sources.build({"name": "synthetic", "num_examples": 50})
    in_graph = tf.function(lambda c: source.order(7, c))
    counter = tf.constant([3, 60, 149, 0], tf.int64)
    np.testing.assert_array_equal(in_graph(counter), source.order(7, counter))
    assert in_graph(counter[1]) == in_graph(counter)[1]


@pytest.mark.parametrize("name", sources.SOURCES)
def test_the_table_holds_sources(name):
    assert issubclass(sources.SOURCES[name], Source)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "digit"}, "no 'digit'.*digits, folder, hugging.*tfds"),
        ({"name": "digits", "split": "val"}, "no split 'val'"),
        ({"name": "synthetic", "size": 0}, "size=0 must be at least 1"),
    ],
)
def test_errors_name_value_and_rule(spec, message):
    with pytest.raises(ValueError, match=message):
        sources.build(spec)
