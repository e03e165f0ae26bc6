"""Streams: batch k is a pure function of (seed, k), on any number of hosts."""

import itertools
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from beit_jax.data import pipeline
from beit_jax.data.sources import synthetic


def spec_of(**shapes):
    dtypes = {"mask": np.bool_, "label": np.int32}
    return {
        name: SimpleNamespace(shape=shape, dtype=np.dtype(dtypes.get(name, np.uint8)))
        for name, shape in shapes.items()
    }


SUFFIXES = ("jpg", "png")
SPEC = spec_of(image=(16, 16, 3), token_image=(8, 8, 3), mask=(4, 4), label=())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten images of different sizes in two classes, JPEG and PNG."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.RandomState(0)
    for i in range(10):
        pixels = random.randint(0, 256, (20 + i, 30 - i, 3)).astype(np.uint8)
        (root / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(root / "ab"[i % 2] / f"{i}.{SUFFIXES[i % 4 > 1]}")
    return root


@pytest.fixture(params=["synthetic", "folder"])
def config(request):
    """Ten examples, read as stacks and one by one."""
    source = {"name": "synthetic", "num_examples": 10, "size": 20}
    if request.param == "folder":
        source = {"name": "folder", "path": str(request.getfixturevalue("folder"))}
    return config_of(source)


def config_of(source, **changes):
    return {
        "batch_size": 4,
        "source": source,
        "eval_source": source,
        "augment": {"min_scale": 0.3, "flip": True},
        "mask": {"name": "blockwise", "max_patches": 6, "min_block": 2},
        **changes,
    }


def take(batches, count):
    return list(itertools.islice(batches, count))


def assert_same(a, b):
    for left, right in zip(a, b, strict=True):
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def test_batches_have_exactly_the_promised_arrays(config):
    for stream in (
        pipeline.train_stream(config, SPEC, seed=0),
        pipeline.eval_stream(config, SPEC, seed=0),
    ):
        batch = next(stream.batches())
        assert batch.keys() == {*SPEC, "weight"}
        for name, (shape, dtype) in stream.spec.items():
            assert (batch[name].shape, batch[name].dtype) == (shape, dtype)
        assert (batch["weight"] == 1).all()


def test_without_masks_or_labels_there_are_none(config):
    batch = next(pipeline.train_stream(config, spec_of(image=(8, 8, 3)), 0).batches())
    assert batch.keys() == {"image", "weight"}


def test_seeking_gives_what_running_gives(config):
    run = take(pipeline.train_stream(config, SPEC, seed=1).batches(0), 7)
    sought = take(pipeline.train_stream(config, SPEC, seed=1).batches(4), 3)
    assert_same(run[4:], sought)


@pytest.mark.parametrize(
    ("make", "hosts"), [(pipeline.train_stream, 4), (pipeline.eval_stream, 2)]
)
def test_hosts_only_divide_the_batches(config, make, hosts):
    stream = make(config, SPEC, seed=1)
    whole = take(stream.batches(), 3)
    parts = [take(stream.batches(shard=(host, hosts)), 3) for host in range(hosts)]
    joined = [
        {name: np.concatenate([part[name] for part in step]) for name in step[0]}
        for step in zip(*parts, strict=True)
    ]
    assert_same(whole, joined)


def test_seeds_give_different_order_crops_and_masks(config):
    first, second = (
        next(pipeline.train_stream(config, SPEC, seed).batches()) for seed in (0, 1)
    )
    for name in ("image", "mask"):
        assert (first[name] != second[name]).any()


def test_an_epoch_has_every_example_once_in_an_order_of_its_own():
    """The label of each synthetic example is its index here."""
    source = {"name": "synthetic", "num_examples": 10, "num_classes": 10, "size": 8}
    stream = pipeline.train_stream(config_of(source), SPEC, seed=0)
    labels = np.concatenate([b["label"] for b in take(stream.batches(), 10)])
    epochs = labels.reshape(4, 10)
    assert (np.sort(epochs) == np.arange(10)).all()
    assert len(np.unique(epochs, axis=0)) == 4
    assert stream.steps_per_epoch == 2


def test_fewer_examples_than_a_batch_still_make_batches():
    config = config_of({"name": "synthetic", "num_examples": 1}, batch_size=3)
    stream = pipeline.train_stream(config, SPEC, seed=0)
    assert stream.steps_per_epoch == 1
    assert next(stream.batches())["image"].shape == (3, 16, 16, 3)


def test_evaluation_counts_each_example_once_and_repeats_itself(config):
    stream = pipeline.eval_stream(config, SPEC, seed=0)
    passes = [list(stream.batches()) for _ in range(2)]
    assert_same(*passes)
    weights = np.concatenate([b["weight"] for b in passes[0]])
    np.testing.assert_array_equal(weights, [1] * 10 + [0] * 2)
    assert stream.steps_per_epoch == 3


def test_evaluation_keeps_the_order_of_the_source():
    source = {"name": "synthetic", "num_examples": 10, "num_classes": 10, "size": 16}
    stream = pipeline.eval_stream(config_of(source), SPEC, seed=0)
    batches = list(stream.batches())
    labels = np.concatenate([b["label"] for b in batches])[:10]
    images = np.concatenate([b["image"] for b in batches])[:10]
    np.testing.assert_array_equal(labels, np.arange(10))
    want = synthetic.Synthetic(10, 10, 16).read(tf.range(10, dtype=tf.int64))["image"]
    np.testing.assert_array_equal(images, want)


def test_views_of_one_size_are_the_same_pixels(config):
    spec = spec_of(image=(16, 16, 3), token_image=(16, 16, 3))
    batch = next(pipeline.train_stream(config, spec, seed=0).batches())
    np.testing.assert_array_equal(batch["image"], batch["token_image"])


def test_both_views_show_the_same_part_and_side(config):
    batch = next(pipeline.train_stream(config, SPEC, seed=0).batches())
    halved = batch["image"].reshape(4, 8, 2, 8, 2, 3).mean((2, 4))
    views = [halved.reshape(4, -1), batch["token_image"].reshape(4, -1)]
    likeness = np.corrcoef(np.concatenate(views))[:4, 4:]
    assert (
        likeness.argmax(1) == np.arange(4)
    ).all() and likeness.diagonal().min() > 0.9


def test_files_are_decoded_to_pils_pixels(folder):
    for file in sorted(folder.rglob("*.*g")):
        decoded = pipeline._decode(tf.constant(file.read_bytes()))
        np.testing.assert_array_equal(decoded, np.asarray(Image.open(file)))


@pytest.mark.parametrize("make", [pipeline.train_stream, pipeline.eval_stream])
@pytest.mark.parametrize("name", ["b/5.jpg", "b/7.png"])
def test_a_broken_image_is_named(folder, tmp_path, make, name):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).write_bytes((folder / name).read_bytes()[:200])
    config = config_of({"name": "folder", "path": str(tmp_path)})
    with pytest.raises(ValueError, match=f"cannot decode .*/{name}: "):
        take(make(config, SPEC, seed=0).batches(), 3)


@pytest.mark.parametrize(
    ("changes", "spec", "message"),
    [
        ({"batch_size": 6}, SPEC, "batch_size=6 cannot be split over 4 hosts"),
        ({}, spec_of(picture=(8, 8, 3)), "no 'picture'.*it has image"),
        ({"mask": {"name": "blocks"}}, SPEC, "no 'blocks'.*blockwise, random"),
        (
            {"mask": {"name": "random", "min_block": 2}},
            SPEC,
            "'random'.*no setting 'min_block'",
        ),
    ],
)
def test_settings_that_do_not_fit_are_named(changes, spec, message):
    config = config_of({"name": "synthetic"}, **changes)
    with pytest.raises(ValueError, match=message):
        next(pipeline.train_stream(config, spec, 0).batches(0, shard=(0, 4)))


def test_labels_are_refused_where_there_are_none(folder):
    config = config_of({"name": "folder", "path": str(folder / "a")})
    with pytest.raises(ValueError, match="needs labels"):
        pipeline.train_stream(config, SPEC, seed=0)
