"""The walk over a data set finds what is bad, and shows what is good."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from beit_jax import check_data
from beit_jax import config as config_lib
from beit_jax.data import frames, sources
from beit_jax.data.settings import Augment
from beit_jax.data.views import Views
from tests.data import corpus

GOOD, BAD = corpus.good(), corpus.bad()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of every file of the corpus."""
    root = tmp_path_factory.mktemp("images")
    for number, (name, (data, _)) in enumerate({**GOOD, **BAD}.items()):
        (root / "ab"[number % 2]).mkdir(exist_ok=True)
        (root / "ab"[number % 2] / name).write_bytes(data)
    return root


def found(source, limit=0, apply_exif=False, **shapes):
    """The report on a source, of whose images 8x8 pixels are wanted."""
    forms = {"image": ((8, 8, 3), np.uint8), "label": ((), np.int32)}
    forms["labels_2d"] = (8, 8), np.int32
    spec = {name: jax.ShapeDtypeStruct(*forms[name]) for name in ("image", *shapes)}
    source = sources.build(source)
    classes = len(source.info.class_names)
    views = Views(
        Augment(),
        spec,
        frames.Centre(),
        training=False,
        classes=classes,
        apply_exif=apply_exif,
    )
    survey = check_data.Survey(source, views)
    assert len(list(survey.walk(limit))) == survey.looked_at
    return survey.report(seconds=2.0)


def in_folder(folder):
    return {"name": "folder", "path": str(folder)}


def test_bad_files_are_named_and_good_ones_counted(folder):
    made = found(in_folder(folder), label=True)
    assert {os.path.basename(name) for name in made["bad"]} == BAD.keys()
    assert made["looked_at"] == made["examples"] == len(GOOD) + len(BAD)
    assert sum(made["formats"].values()) == len(GOOD)
    assert sum(made["images_per_class"].values()) == len(GOOD)
    assert made["exif_turned"] == 1
    assert made["formats"]["JPEG L"] == 1 and made["formats"]["JPEG CMYK"] == 1
    assert made["width"]["median"] == 48 and made["height"]["least"] == 1
    assert made["examples_per_second"] == made["examples"] / 2


@pytest.mark.parametrize("apply_exif", [False, True])
def test_what_a_run_uses_is_not_bad(tmp_path, apply_exif):
    for name in ("odd_exif.png", "exif_turned.jpg"):
        (tmp_path / name).write_bytes(GOOD[name][0])
    made = found(in_folder(tmp_path), apply_exif=apply_exif)
    assert [os.path.basename(name) for name in made["bad"]] == (
        ["odd_exif.png"] if apply_exif else []
    )
    assert made["exif_turned"] == 1 and made["formats"]["JPEG RGB"] == 1


def test_few_bits_in_sixteen_are_told(tmp_path):
    for name, most in (("twelve.png", 2**12), ("sixteen.png", 2**16)):
        deep = np.arange(0, most, most // 64).reshape(8, 8).astype(np.uint16)
        Image.fromarray(deep).save(tmp_path / name)
    (note,) = found(in_folder(tmp_path))["notes"]
    assert note.startswith("1 images are stored with 16 bits and have no level above")


def test_what_is_left_out_is_told(tmp_path):
    for name in ("plain.jpg", "phone.heic"):
        (tmp_path / name).write_bytes(GOOD["plain.jpg"][0])
    left, unread = found(in_folder(tmp_path))["notes"]
    assert left.endswith("no images that can be read: .heic 1")
    assert unread.endswith("so not used: .heic 1; save them as JPEG or PNG")


def test_turned_images_are_warned_of_where_they_stay_so(tmp_path):
    (tmp_path / "exif_turned.jpg").write_bytes(GOOD["exif_turned.jpg"][0])
    (note,) = found(in_folder(tmp_path))["notes"]
    assert note.startswith("1 images are to be shown turned") and "apply_exif" in note
    assert not found(in_folder(tmp_path), apply_exif=True)["notes"]


def test_splits_by_their_names_are_told_and_what_they_share(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    for folder, number in (("train", 0), ("train", 1), ("val", 1), ("val", 2)):
        (tmp_path / folder / "cat").mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels[number]).resize(
            (64, 48), Image.Resampling.BICUBIC
        )
        image.save(tmp_path / folder / "cat" / f"{number}.jpg", quality=60 + number)
    made = found(in_folder(tmp_path))
    splits, alike = made["notes"]
    assert "train, val are splits" in splits and "split='train'" in splits
    assert made["look_alike"] == 1 and "1 of them in two folders" in alike
    assert alike.endswith(f"{tmp_path}/train/cat/1.jpg and {tmp_path}/val/cat/1.jpg")
    one = {**in_folder(tmp_path), "split": "train"}
    assert not found(one)["notes"]


def test_examples_without_labels_are_bad_only_where_labels_are_needed(tmp_path):
    (tmp_path / "plain.jpg").write_bytes(GOOD["plain.jpg"][0])
    line = {"image": "plain.jpg", "boxes": [[0, 0, 5, 5]], "classes": ["x"]}
    (tmp_path / "list.jsonl").write_text(json.dumps(line))
    source = {"name": "list", "path": str(tmp_path / "list.jsonl")}
    assert not found(source)["bad"]
    (problem,) = found(source, label=True)["bad"].values()
    assert "no label" in problem


def test_mean_and_deviation_are_those_of_all_pixels(tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (2, 5, 4, 3)).astype(np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    made = found(in_folder(tmp_path))
    for name, numbers in (
        ("mean", pixels.mean((0, 1, 2))),
        ("std", pixels.std((0, 1, 2))),
    ):
        np.testing.assert_allclose(made[name], numbers / 255, atol=1e-4)


def test_a_limit_looks_at_the_first(folder):
    assert found(in_folder(folder), limit=3)["looked_at"] == 3


def test_the_command_writes_report_and_sheet_and_fails_for_bad_files(folder, tmp_path):
    command = [sys.executable, "-m", "beit_jax.check_data", "--data", folder]
    done = subprocess.run(
        [*command, "--out", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 65, done.stderr
    assert "bomb.png: 12000x12000" in done.stdout
    assert json.loads((tmp_path / "report.json").read_text())["bad"]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert (
            sheet.size[0] == 9 * check_data._CELL and len(set(sheet.getdata())) > 1000
        )


def test_what_is_in_training_and_in_the_test_is_told(tmp_path):
    rng = np.random.default_rng(0)
    for name in "abc":
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    for name, images in (("train", "ab"), ("test", "bc")):
        rows = "".join(f"{image}.png,x\n" for image in images)
        (tmp_path / f"{name}.csv").write_text("image,label\n" + rows)
    made = {}
    for data in ("train", "test"):
        source = sources.build({"name": "list", "path": str(tmp_path / f"{data}.csv")})
        made[data] = source
    spec = {"image": jax.ShapeDtypeStruct((8, 8, 3), np.uint8)}
    views = Views(Augment(), spec, frames.Centre(), training=False)
    survey = check_data.Survey(made["train"], views)
    assert len(list(survey.walk(0))) == 2
    survey.compare(made["test"], 0)
    (note,) = survey.report(seconds=1.0)["notes"]
    assert "1 of them in two folders or sources" in note
    assert note.endswith(f"{tmp_path}/b.png and {tmp_path}/b.png")


def test_a_list_can_be_looked_at(tmp_path):
    (tmp_path / "plain.jpg").write_bytes(GOOD["plain.jpg"][0])
    (tmp_path / "rows.csv").write_text("image,label\nplain.jpg,cat\n")
    data, _ = check_data._of_images(str(tmp_path / "rows.csv"))
    assert found(data.source)["images_per_class"] == {"cat": 1}


@pytest.fixture
def segments(tmp_path):
    """Three images: a map of two classes, one that ignores all, a wrong one."""
    maps = [[0, 0, 0, 1], [255, 255, 255, 255], [0, 1, 2, 0]]
    for number, labels in enumerate(maps):
        pixels = np.resize(np.array(labels, np.uint8), (8, 12))
        image = Image.fromarray(pixels, "P" if number == 0 else "L")
        if number == 0:
            image.putpalette([0, 0, 0, 255, 0, 0])
        for folder, one in (("masks", image), ("images", image.convert("RGB"))):
            (tmp_path / folder).mkdir(exist_ok=True)
            one.save(tmp_path / folder / f"{number}.png")
    names = ("cat", "dog")
    return {"name": "segments", "path": str(tmp_path), "class_names": names}


def test_label_maps_are_counted_and_doubts_told(segments):
    made = found(segments, labels_2d=True)
    assert made["share_of_pixels"] == {"cat": 0.75, "dog": 0.25}
    assert made["images_per_class"] == {"cat": 1, "dog": 1}
    assert made["label_maps"] == {"PNG P": 1, "PNG L": 1}
    assert made["ignored_pixels"] == 0.5 and made["all_ignored"] == "1 of 2"
    (bad,) = made["bad"].values()
    assert "24 pixels of label 2" in bad
    told = " ".join(made["notes"])
    assert "1 label maps ignore every pixel" in told and "images/1.png" in told
    assert "1 label maps have a palette" in told
    assert "label_maps" not in found(segments)  # nobody asks for them


def test_the_sheet_shows_label_maps_and_which_colour_is_which_class(segments):
    data = config_lib.defaults().data
    data.source = ConfigDict(segments | {"colours": ((0, 255, 0), (0, 0, 255))})
    form = jax.ShapeDtypeStruct
    spec = {"image": form((16, 16, 3), np.uint8), "label_map": form((16, 16), np.uint8)}
    sheet = np.asarray(check_data.sheet(data, spec))
    assert sheet.shape[1] == 8 * check_data._CELL
    colours = {*map(tuple, sheet.reshape(-1, 3).tolist())}
    assert {(0, 255, 0), (0, 0, 255)} <= colours  # the legend's
