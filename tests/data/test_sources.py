"""Sources: what they read, which subsets they keep, what they refuse."""

import io
import tarfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from beit_jax.data import sources
from beit_jax.data.sources.base import few_per_class


def png(value):
    data = io.BytesIO()
    Image.new("RGB", (9, 7), (value, 0, 255 - value)).save(data, "png")
    return data.getvalue()


@pytest.fixture
def tree(tmp_path):
    """Two splits of two classes, three images each, and files that are no images."""
    root = tmp_path / "set"
    for split in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for i in range(3):
                data = png(100 * number + 10 * i + (split == "test"))
                (root / split / name / f"{i}.png").write_bytes(data)
    (root / "README.md").write_text("not an image")
    (root / "train" / "cat" / "._0.png").write_bytes(b"left by macOS")
    return root


def pack(tree, path):
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        archive.add(tree, arcname=tree.name)
    return path


def read_all(source):
    read = [source.read(tf.constant(i, tf.int64)) for i in range(source.info[1])]
    return [(r["image"].numpy(), int(r["label"])) for r in read]


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_a_stack_reads_as_its_examples_do(name):
    source = sources.build({"name": name, "size": 16})
    stack = source.read(tf.constant([3, 0, 5], tf.int64))
    for at, index in enumerate((3, 0, 5)):
        one = source.read(tf.constant(index, tf.int64))
        assert one["image"].shape == (16, 16, 3) and one["image"].dtype == tf.uint8
        assert one["label"].shape == () and one["label"].dtype == tf.int32
        np.testing.assert_array_equal(stack["image"][at], one["image"])
        assert stack["label"][at] == one["label"]


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_labels_are_classes(name):
    source = sources.build({"name": name})
    labels = source.read(tf.range(source.info.num_examples, dtype=tf.int64))["label"]
    assert set(labels.numpy()) == set(range(len(source.info.class_names)))


def test_digits_are_sklearns_in_order_split_at_1397():
    from sklearn.datasets import load_digits

    train, test = (
        sources.build({"name": "digits", "split": s, "size": 8})
        for s in ("train", "test")
    )
    assert (train.info.num_examples, test.info.num_examples) == (1397, 400)
    grey, labels = load_digits(return_X_y=True)
    first = test.read(tf.constant(0, tf.int64))
    assert first["label"] == labels[1397]
    levels = first["image"].numpy()[..., 0].reshape(-1)
    np.testing.assert_array_equal(levels, np.round(grey[1397] * 255 / 16))


def test_digits_keep_the_asked_labels_per_class():
    few = sources.build({"name": "digits", "labels_per_class": 5})
    labels = few.read(tf.range(50, dtype=tf.int64))["label"].numpy()
    assert few.info.num_examples == 50
    assert (np.bincount(labels) == 5).all()


def test_a_smaller_subset_is_part_of_a_larger_and_seeds_differ():
    labels = np.arange(200) % 4
    small, large, other = (few_per_class(labels, *a) for a in ((3, 0), (9, 0), (9, 1)))
    assert set(small) < set(large)
    assert set(large) != set(other)


def test_synthetic_classes_are_easily_told_apart():
    """Each image is nearest in mean colour to its own class."""
    source = sources.build({"name": "synthetic", "num_examples": 64})
    read = source.read(tf.range(64, dtype=tf.int64))
    colour = read["image"].numpy().mean((1, 2))
    colour /= np.linalg.norm(colour, axis=-1, keepdims=True)
    labels = read["label"].numpy()
    centres = np.stack([colour[labels == c].mean(0) for c in range(4)])
    assert ((colour @ centres.T).argmax(-1) == labels).all()
    assert len({image.tobytes() for image in read["image"].numpy()}) == 64


def test_class_is_the_parent_folder(tree):
    source = sources.build({"name": "folder", "path": str(tree), "split": "train"})
    assert source.info.class_names == ("cat", "dog")
    assert [label for _, label in read_all(source)] == [0, 0, 0, 1, 1, 1]
    assert source.describe(4) == str(tree / "train" / "dog" / "1.png")


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
@pytest.mark.parametrize("split", ["", "train"])
def test_an_archive_gives_what_its_folder_gives(tree, suffix, split):
    archive = pack(tree, tree.parent / f"set{suffix}")
    spec = {"name": "folder", "split": split}
    packed = sources.build({**spec, "path": str(archive)})
    unpacked = sources.build({**spec, "path": str(tree.parent / "set")})
    assert packed.info.class_names == unpacked.info.class_names
    assert read_all(packed) == read_all(unpacked)


def test_images_in_one_folder_have_no_classes(tree):
    source = sources.build({"name": "folder", "path": str(tree / "train" / "cat")})
    assert source.info.class_names == () and source.info.num_examples == 3


def test_folder_subsets(tree):
    spec = {"name": "folder", "path": str(tree)}
    few = sources.build({**spec, "labels_per_class": 2})
    assert sorted(label for _, label in read_all(few)) == [0, 0, 1, 1]
    assert sources.build({**spec, "limit": 5}).info.num_examples == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "nowhere"}, "no folder or archive .*path='nowhere'"),
        ({"split": "val"}, "no images at .*set below a folder named 'val'.*png"),
        ({"labels_per_class": 7}, "labels_per_class=7, but class 0 has 6"),
        ({"labels_per_clas": 7}, "did you mean 'labels_per_class'"),
        ({"labels_per_class": 1, "limit": 1}, "not both"),
    ],
)
def test_folder_errors_name_value_and_rule(tree, settings, message):
    with pytest.raises(ValueError, match=message):
        sources.build({"name": "folder", "path": str(tree), **settings})


def test_images_beside_class_folders_are_refused(tree):
    (tree / "train" / "stray.png").write_bytes(png(0))
    with pytest.raises(ValueError, match="beside and inside.*stray.png"):
        sources.build({"name": "folder", "path": str(tree / "train")})


def test_unknown_source_says_what_there_is():
    with pytest.raises(ValueError, match="no 'digit'.*digits, folder, synthetic"):
        sources.build({"name": "digit"})


def test_unknown_split_of_digits_is_refused():
    with pytest.raises(ValueError, match="no split 'val'"):
        sources.build({"name": "digits", "split": "val"})
