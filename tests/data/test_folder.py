"""Class folders: labels, subsets, and the same examples however they are packed."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from beit_jax.data import sources
from beit_jax.data.ops import decode
from beit_jax.data.sources import suffixes
from beit_jax.data.sources.files import KINDS
from beit_jax.data.sources.subset import Subset, few_per_class
from beit_jax.data.sources.suffixes import FORMATS
from tests.data.trees import make_tree, pack, png, read_all
from tests.shared import shared_path


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "set")


def folder(path, **settings):
    return sources.build({"name": "folder", "path": str(path), **settings})


def test_class_is_the_parent_folder(tree):
    source = folder(tree, split="train")
    assert source.info.class_names == ("cat", "dog")
    assert [label for _, label in read_all(source)] == [0, 0, 0, 1, 1, 1]
    assert source.describe(4) == str(tree / "train" / "dog" / "1.png")
    assert source.read(4).image == png(110)


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("split", ["", "train"])
def test_an_archive_gives_what_its_folder_gives(tree, suffix, split):
    packed = folder(pack(tree, tree.parent / f"set{suffix}"), split=split)
    unpacked = folder(tree, split=split)
    assert packed.info[1:] == unpacked.info[1:]  # even the digest
    assert read_all(packed) == read_all(unpacked)


@pytest.mark.parametrize("suffix", [".tif", ".TIFF", ".jpg", ".webp", ".gif", ".bmp"])
def test_images_are_known_by_their_suffix(tmp_path, suffix):
    Image.new("RGB", (4, 4)).save(tmp_path / f"a{suffix}")
    assert folder(tmp_path).info.num_examples == 1


def test_images_in_one_folder_have_no_classes(tree):
    source = folder(tree / "train" / "cat")
    assert source.info.class_names == () and source.info.num_examples == 3


def test_given_classes_number_the_folders(tree):
    """In their order, of which a folder may be missing; others are an error."""
    source = folder(tree, split="train", class_names=("dog", "eel", "cat"))
    assert source.info.class_names == ("dog", "eel", "cat")
    assert [label for _, label in read_all(source)] == [2, 2, 2, 0, 0, 0]
    one = folder(tree / "train", split="dog", class_names=("cat", "dog"))
    assert [label for _, label in read_all(one)] == [1, 1, 1]
    with pytest.raises(ValueError, match=r"none of the 2 classes \(eel, dog\): cat"):
        folder(tree, class_names=("eel", "dog"))


def test_a_name_of_two_classes_is_refused_where_it_is_used(tree):
    names = ("cat", "dog", "crane", "crane")
    assert folder(tree, class_names=names).info.class_names == names
    with pytest.raises(ValueError, match="class_names has 'cat' 2 times"):
        folder(tree, class_names=("cat", "dog", "cat"))
    (tree / "list.csv").write_text("image,label\ntrain/cat/0.png,cat\n")
    listed = {"name": "list", "path": str(tree / "list.csv")}
    with pytest.raises(ValueError, match="class_names has 'cat' 2 times"):
        sources.build(listed | {"class_names": ("cat", "cat")})


def test_class_names_may_be_numbers(tree):
    (tree / "train" / "cat").rename(tree / "train" / "7")
    (tree / "train" / "dog").rename(tree / "train" / "3")
    source = folder(tree / "train", class_names=(7, 3))
    assert source.info.class_names == ("7", "3")


def test_a_slash_at_the_end_of_the_path_changes_nothing(tree):
    assert folder(f"{tree}/").info == folder(tree).info


def test_folder_subsets(tree):
    few = folder(tree, labels_per_class=2)
    assert sorted(label for _, label in read_all(few)) == [0, 0, 1, 1]
    assert folder(tree, limit=5).info.num_examples == 5


def test_parts_share_nothing_and_miss_nothing(tree):
    train, test = (folder(tree, part=part) for part in ("train", "test"))
    names = [[s.describe(i) for i in range(s.info[1])] for s in (train, test)]
    assert len(names[1]) == 1
    assert sorted(names[0] + names[1]) == [folder(tree).describe(i) for i in range(12)]


def test_the_digest_is_of_names_labels_and_order(tree):
    seen = {folder(tree).info.digest, folder(tree, limit=11).info.digest}
    (tree / "train" / "cat" / "0.png").rename(tree / "train" / "cat" / "9.png")
    seen.add(folder(tree).info.digest)  # a name, and the order
    (tree / "train" / "dog").rename(tree / "train" / "ant")
    seen.add(folder(tree).info.digest)  # labels
    assert len(seen) == 4


def test_the_digest_stays_when_the_data_moves(tree):
    before = folder(tree, split="train").info.digest
    shutil.copytree(tree / "train", tree.parent / "elsewhere")
    assert folder(tree.parent / "elsewhere").info.digest == before


def test_a_smaller_subset_is_part_of_a_larger_and_seeds_differ():
    labels = np.arange(200) % 4
    small, large, other = (few_per_class(labels, *a) for a in ((3, 0), (9, 0), (9, 1)))
    assert set(small) < set(large)
    assert set(large) != set(other)


def test_a_subset_is_drawn_within_its_part():
    labels = np.arange(200) % 4
    kept = Subset(part="test", labels_per_class=2).keep(200, lambda mine: labels[mine])
    assert (kept % 10 == 9).all() and len(kept) == 2 * len(set(labels[9::10]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "nowhere"}, "no folder or archive .*path='nowhere'"),
        ({"split": "val"}, "no images at .*set below a folder named 'val'.*png"),
        ({"labels_per_class": 7}, "labels_per_class=7, but class 'cat' has 6"),
        ({"labels_per_clas": 7}, "did you mean 'labels_per_class'"),
        ({"labels_per_class": 1, "limit": 1}, "not both"),
        ({"subset_seed": -1}, "subset_seed=-1 must be in 0 .. 4294967295"),
        ({"limit": -1}, "limit=-1 must be at least 0"),
        ({"part": "val"}, "part='val' must be train, test or empty"),
    ],
)
def test_folder_errors_name_value_and_rule(tree, settings, message):
    with pytest.raises(ValueError, match=message):
        sources.build({"name": "folder", "path": str(tree), **settings})


def test_the_same_classes_in_another_order_are_told_so(tmp_path):
    """Folders are sorted as texts, a list's numbers as numbers."""
    lines = ["image,label"]
    for number in range(12):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "a.png").write_bytes(png(number))
        lines.append(f"{number}/a.png,{number}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    listed = sources.build({"name": "list", "path": str(tmp_path / "list.csv")})
    folders = folder(tmp_path)
    said = sources.difference(folders.info, listed.info)
    assert "the same classes in another order: 0, 1, 10, 11, 2" in said
    assert ", and 0, 1, 2, 3," in said and "class_names" in said
    same = folder(tmp_path, class_names=listed.info.class_names)
    assert sources.difference(same.info, listed.info) == ""


def test_a_flat_folder_has_no_classes_to_find(tree):
    with pytest.raises(ValueError, match=r"lie in no class folders.*\(cat, dog\)"):
        folder(tree / "train" / "cat", class_names=("cat", "dog"))


def test_images_beside_class_folders_are_refused(tree):
    (tree / "train" / "stray.png").write_bytes(png(0))
    with pytest.raises(ValueError, match="beside and inside.*stray.png"):
        folder(tree / "train")


def test_an_image_that_disappears_is_a_bad_example_with_its_name(tree):
    source = folder(tree, split="train")
    os.remove(source.describe(2))
    with pytest.raises(sources.BadExample, match="train/cat/2.png: No such file"):
        source.read(2)


def test_cifar10_has_its_images_and_labels():
    source = folder(shared_path("data/cifar10/cifar10_test.tar.gz"))
    labels = np.array([source.read(i).label for i in range(source.info.num_examples)])
    assert (np.bincount(labels) == 1000).all()
    assert source.info.class_names[0] == "airplane"


def test_caltech20a_is_read_to_the_last_byte_from_its_tar():
    source = folder(shared_path("data/caltech20a/caltech20a.tar"))
    assert len(source.info.class_names) == 20
    for index in range(0, source.info.num_examples, 50):
        assert source.read(index).image.endswith(b"\xff\xd9")  # the end of a JPEG


@pytest.mark.parametrize("suffix", suffixes.SUFFIXES)
def test_every_suffix_of_a_format_is_read(tmp_path, suffix):
    (form,) = (form for form, names in FORMATS.items() if suffix in names)
    Image.new("RGB", (4, 4), (9, 8, 7)).save(tmp_path / f"a{suffix.upper()}", form)
    (tmp_path / "b.png").write_bytes(png(0))
    source = folder(tmp_path)
    assert source.info.num_examples == 2 and not source.notes
    assert decode.to_rgb(decode.open_image(source.read(0).image)).size == (4, 4)


@pytest.mark.parametrize("suffix", ["", *KINDS])
def test_what_is_left_out_is_counted_by_suffix_and_lost_classes_named(tree, suffix):
    for name in ("train/eel/0.HEIC", "train/eel/1.heic", "train/cat/x.avif"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(b"x")
    path = pack(tree, tree.parent / f"set{suffix}") if suffix else tree
    left, unread, lost = folder(path, split="train").notes
    assert "3 of 9 files are left out" in left and left.endswith(".heic 2, .avif 1")
    assert unread.endswith(".heic 2, .avif 1; save them as JPEG or PNG")
    assert lost.endswith("train/eel") and "without a class" in lost
    two = {"name": "folder", "path": str(path)}
    mixture = sources.build({"name": "mixture", "parts": [two, two]})
    assert mixture.notes == 2 * folder(path).notes
    with pytest.raises(ValueError, match=r"no images .*2 of 2 files .*: \.heic 2"):
        folder(path, split="eel")


@pytest.mark.parametrize("left", ["@eaDir", "#recycle", ".thumbnails", "__MACOSX"])
def test_what_systems_leave_behind_is_no_class(tree, left):
    before = folder(tree).info
    (tree / "train" / left / "0.png").mkdir(parents=True)
    (tree / "train" / left / "0.png" / "SYNOPHOTO_THUMB_M.png").write_bytes(png(3))
    assert folder(tree).info == before
