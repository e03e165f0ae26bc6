"""Lists of images: what a line may say, and what is said of a wrong one."""

import concurrent.futures
import json

import numpy as np
import pytest

from beit_jax.data import sources
from beit_jax.data.sources.files import KINDS
from tests.data.trees import make_tree, pack, png, read_all

A, B, C = "train/cat/0.png", "train/dog/1.png", "test/dog/2.png"


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "set")


def write(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def write_jsonl(tree, *rows):
    return write(tree / "list.jsonl", map(json.dumps, rows))


def build(path, **settings):
    return sources.build({"name": "list", "path": str(path), **settings})


def test_a_csv_gives_its_images_in_its_order(tree):
    path = write(tree / "list.csv", ["label,image", f"dog,{B}", f"cat,{A}"])
    source = build(path)
    assert source.info.class_names == ("cat", "dog")
    assert read_all(source) == [(png(110), 1), (png(0), 0)]
    assert source.describe(0) == str(tree / B)


def test_a_jsonl_says_what_a_csv_does(tree):
    table = write(tree / "list.csv", ["image,label", f"{A},cat", f"{B},dog"])
    lines = write_jsonl(
        tree, {"image": A, "label": "cat"}, {"image": B, "label": "dog"}
    )
    assert build(table).info[1:] == build(lines).info[1:]
    assert read_all(build(table)) == read_all(build(lines))


@pytest.mark.parametrize("suffix", KINDS)
def test_images_may_lie_in_an_archive(tree, suffix):
    path = write(tree / "list.csv", ["image,label", f"set/{A},0", f"set/{B},2"])
    packed = build(path, root=str(pack(tree, tree.parent / f"set{suffix}")))
    assert read_all(packed) == read_all(build(path, root=str(tree.parent)))
    assert packed.info == build(path, root=str(tree.parent)).info


def test_eight_threads_read_what_one_does(tree):
    source = build(write(tree / "list.csv", ["image", *[A, B, C] * 50]))
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        read = list(threads.map(source.read, range(150)))
    assert [r[:2] for r in read] == read_all(source)


def test_numbers_without_class_names_make_classes_up_to_the_largest(tree):
    source = build(write(tree / "list.csv", ["image,label", f"{A},0", f"{B},3"]))
    assert source.info.class_names == ("0", "1", "2", "3")
    assert [label for _, label in read_all(source)] == [0, 3]


def test_class_names_order_the_labels_of_every_list(tree):
    path = write(tree / "list.csv", ["image,label", f"{A},cat", f"{B},1"])
    for names in (("cat", "dog", "eel"), ["cat", "dog", "eel"]):
        source = build(path, class_names=names)
        assert source.info.class_names == ("cat", "dog", "eel")
        assert [label for _, label in read_all(source)] == [0, 1]


def test_a_text_that_is_a_class_name_is_that_class(tree):
    path = write(tree / "list.csv", ["image,label", f"{A},7"])
    assert build(path, class_names=("9", "7")).read(0).label == 1


def test_without_labels_there_are_no_classes(tree):
    source = build(write(tree / "list.csv", ["image", A, B]))
    assert source.info.class_names == () and source.read(1).label is None


def test_label_maps_are_read_beside_the_images(tree):
    path = write(tree / "list.csv", ["image,label_map", f"{A},{B}", f"{B},{C}"])
    record = build(path, class_names=("sky", "road")).read(1)
    assert (record.image, record.label_map) == (png(110), png(121))


def test_boxes_and_their_classes_are_arrays(tree):
    boxes = [[0, 1.5, 4, 5], [2, 2, 3, 3]]
    path = write_jsonl(
        tree,
        {"image": A, "boxes": boxes, "classes": ["dog", "cat"]},
        {"image": B, "boxes": [], "classes": []},
    )
    source = build(path)
    assert source.info.class_names == ("cat", "dog")
    some, none = source.read(0), source.read(1)
    np.testing.assert_array_equal(some.boxes, np.array(boxes, np.float32))
    assert some.classes.tolist() == [1, 0]
    assert (none.boxes.shape, none.boxes.dtype) == ((0, 4), np.float32)
    assert (none.classes.shape, none.classes.dtype) == ((0,), np.int32)


def test_subsets(tree):
    lines = [f"{image},{label}" for label, image in enumerate((A, B, C))] * 10
    path = write(tree / "list.csv", ["image,label", *lines])
    few = build(path, labels_per_class=2)
    assert sorted(label for _, label in read_all(few)) == [0, 0, 1, 1, 2, 2]
    assert build(path, limit=4).info.num_examples == 4
    assert build(path, part="test").info.num_examples == 3


def test_the_digest_is_of_names_labels_and_order(tree):
    def digest(*lines):
        path = write(tree / "list.csv", ["image,label", *lines])
        return build(path, class_names=("cat", "dog")).info.digest

    one = digest(f"{A},cat", f"{B},dog")
    others = {
        digest(f"{B},dog", f"{A},cat"),
        digest(f"{A},dog", f"{B},dog"),
        digest(f"{A},cat", f"{C},dog"),
    }
    assert digest(f"{A},0", f"{B},1") == one
    assert len(others | {one}) == 4


def test_masks_are_read_for_every_box(tree):
    boxes = [[0, 1.5, 4, 5], [2, 2, 3, 3]]
    made = build(write_jsonl(tree, {"image": A, "boxes": boxes, "masks": [B, C]}))
    assert made.read(0).masks == [png(110), png(121)]
    other = build(write_jsonl(tree, {"image": A, "boxes": boxes, "masks": [C, B]}))
    assert made.info.digest != other.info.digest
    lost = {"image": A, "boxes": boxes, "masks": [B, "lost.png"]}
    with pytest.raises(ValueError, match="lost.png"):
        build(write_jsonl(tree, lost)).read(0)


def test_digests_are_those_of_before_there_were_masks(tree):
    """A run goes on with the list that it was begun on."""
    boxes = {"boxes": [[0, 0, 1, 3]], "classes": ["cat"]}
    path = write_jsonl(tree, {"image": A, **boxes}, {"image": B, **boxes})
    assert build(path).info.digest == 3944205925


def test_the_digest_is_of_boxes_too(tree):
    def digest(right):
        return build(write_jsonl(tree, {"image": A, "boxes": [[0, 0, 1, right]]})).info

    assert digest(2).digest != digest(3).digest == digest(3).digest


def test_absolute_paths_must_lie_below_the_root(tree):
    path = write(tree / "list.csv", ["image", tree / A])
    assert build(path).read(0).image == png(0)
    with pytest.raises(ValueError, match="line 2: image .*leads out .*another root"):
        build(path, root=str(tree / "test"))


@pytest.mark.parametrize("name", ["../secret.png", "a/../../secret.png"])
def test_paths_never_lead_out_of_the_root(tree, name):
    (tree.parent / "secret.png").write_bytes(png(1))
    with pytest.raises(ValueError, match="list.csv.*line 2: .*secret.*leads out"):
        build(write(tree / "list.csv", ["image", name]))


def test_a_missing_image_of_a_folder_is_a_bad_example(tree):
    source = build(write(tree / "list.csv", ["image", A, "gone.png"]))
    with pytest.raises(sources.BadExample, match="set/gone.png: No such file"):
        source.read(1)


def test_a_missing_image_of_an_archive_is_named_at_once(tree):
    path = write(tree / "list.csv", ["image", f"set/{A}", "gone.png"])
    archive = pack(tree, tree.parent / "set.zip")
    with pytest.raises(ValueError, match="list.csv.*line 3: .*no 'gone.png' in .*zip"):
        build(path, root=str(archive))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["picture,label", f"{A},0"], "line 1: no column 'image'.*picture, label"),
        (["image,boxes", f"{A},0"], "line 1: a .csv cannot hold boxes.*jsonl"),
        (["image,label", A], "line 2: 1 values for the 2 columns"),
        (["image,label", f"{A},0", f"{B},"], "line 3: no label, which other lines"),
        (["image,label", f"{A},0", ",1"], "line 3: no image"),
        (["image,label", f"{A},-1", f"{B},3"], r"line 2: label '-1' is outside \[0, 4"),
        (["image"], "names no images"),
        ([], "no column 'image'"),
    ],
)
def test_errors_of_a_csv_name_line_value_and_rule(tree, lines, message):
    with pytest.raises(ValueError, match=f"list.csv .*{message}"):
        build(write(tree / "list.csv", lines))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("5", r"line 2: label '5' is outside \[0, 2\)"),
        ("cow", r"line 2: label 'cow' is none of the 2 classes \(cat, dog\)"),
    ],
)
def test_labels_beyond_the_class_names_are_refused(tree, label, message):
    path = write(tree / "list.csv", ["image,label", f"{A},{label}"])
    with pytest.raises(ValueError, match=message):
        build(path, class_names=("cat", "dog"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([A], "line 1: .* is no object"),
        ({"image": 3}, "line 1: image 3 is no path"),
        ({"image": ""}, "line 1: image '' is no path"),
        ({"label": 3}, "line 1: no image"),
        ({"image": A, "label": 1.5}, "label 1.5 is neither a class name nor"),
        ({"image": A, "label": True}, "label True is neither"),
        ({"image": A, "label": 10**12}, r"label 10+ is outside \[0, 1000000\)"),
        ({"image": A, "boxes": [[5, 0, 4, 9]]}, r"\[5, 0, 4, 9\] must have 0 <= top"),
        ({"image": A, "boxes": [[0, 9, 4, 9]]}, "left < right"),
        ({"image": A, "boxes": [[-1, 0, 4, 9]]}, "0 <= top"),
        ({"image": A, "boxes": [[0, 0, 4]]}, r"\[0, 0, 4\] is not four numbers"),
        ({"image": A, "boxes": [[0, 0, 4, float("nan")]]}, "not four numbers"),
        ({"image": A, "boxes": 4}, "boxes 4 are not"),
        ({"image": A, "boxes": [[0, 0, 1, 1]], "classes": []}, "one for each of 1"),
        ({"image": A, "classes": [1]}, "one for each of 0 boxes"),
        ({"image": A, "masks": [B]}, "must be a path for each of 0 boxes"),
        ({"image": A, "boxes": [[0, 0, 1, 1]], "classes": [None]}, "must not be null"),
    ],
)
def test_errors_of_a_jsonl_name_line_value_and_rule(tree, row, message):
    with pytest.raises(ValueError, match=f"list.jsonl cannot be used: .*{message}"):
        build(write_jsonl(tree, row))


def test_a_line_that_is_no_json_is_named(tree):
    path = write(tree / "list.jsonl", [json.dumps({"image": A}), "", "{'image'"])
    with pytest.raises(ValueError, match="list.jsonl .*line 3: no JSON"):
        build(path)


def test_numbers_beside_names_need_class_names(tree):
    rows = [{"image": A, "label": 0}, {"image": B, "label": "dog"}]
    path = write_jsonl(tree, *rows)
    with pytest.raises(
        ValueError, match=r"numbers \(0\) and names \('dog'\); set class"
    ):
        build(path)
    assert build(path, class_names=("cat", "dog")).read(1).label == 1


def test_of_many_bad_lines_the_first_five_and_the_count_are_given(tree):
    path = write(tree / "list.csv", ["image,label", *[f"{A},cow"] * 99])
    with pytest.raises(ValueError, match="line 6: .*; 99 problems in all$") as error:
        build(path, class_names=("cat",))
    assert "line 7" not in str(error.value)


def test_what_is_no_list_is_refused(tree):
    for name in ("list.txt", "gone.csv"):
        with pytest.raises(ValueError, match=f"no list .*csv or .*jsonl.*{name}"):
            build(tree / name)
    (tree / "list.csv").write_bytes(b"image\n\xff\xfe\n")
    with pytest.raises(ValueError, match="list.csv is no list in UTF-8"):
        build(tree / "list.csv")


def test_a_list_of_excel_is_read(tree):
    (tree / "list.csv").write_bytes(
        b"\xef\xbb\xbfimage,label\r\n" + A.encode() + b",0\r\n"
    )
    assert build(tree / "list.csv").info.num_examples == 1


def test_an_image_may_have_several_labels_or_none(tree):
    lines = ["image,label", f"{A},cat | dog", f"{B},", f"{C},dog"]
    table = build(write(tree / "list.csv", lines), separator="|")
    rows = ({"image": A, "label": ["cat", "dog"]}, {"image": B, "label": []})
    same = build(write_jsonl(tree, *rows, {"image": C, "label": ["dog"]}))
    for source in (table, same):
        assert source.info.class_names == ("cat", "dog")
        records = [source.read(i) for i in range(3)]
        assert [r.get("labels").tolist() for r in records] == [[0, 1], [], [1]]
        assert records[0].label is None
        assert source.label_counts().tolist() == [1, 2]
    assert table.info.digest == same.info.digest


def test_columns_may_hold_numbers(tree):
    path = write(tree / "list.csv", ["image,age,size", f"{A},3,-1.5", f"{B},4e1,0"])
    source = build(path, targets=("size", "age"))
    assert source.targets == ("size", "age")
    assert source.read(1).get("numbers").tolist() == [0, 40]


def test_what_is_no_number_is_told_by_its_line(tree):
    path = write(tree / "list.csv", ["image,age", f"{A},3", f"{B},old", f"{C},nan"])
    with pytest.raises(
        ValueError, match="line 3: age 'old' is no finite .*line 4: age"
    ):
        build(path, targets=("age",))


@pytest.mark.parametrize(
    "row, digest",
    [
        ({"label": 1}, 0xD0E753F2),
        ({"label": 1, "boxes": [[0, 0, 1, 1]], "classes": [0]}, 0x414780CC),
    ],
)
def test_digests_of_lists_are_those_of_earlier_versions(tree, row, digest):
    """A checkpoint that was saved on a list goes on with it."""
    assert build(write_jsonl(tree, {"image": A} | row)).info.digest == digest
