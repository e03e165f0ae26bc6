"""The walk over a data set finds what is bad, and shows what is good."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from beit_jax import check_data
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
    (note,) = found(in_folder(tmp_path))["notes"]
    assert note.endswith("no images that can be read: .heic 1")


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
