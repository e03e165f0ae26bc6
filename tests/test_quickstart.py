"""The quickstart, a few steps of everything."""

import importlib
import pathlib
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

LAUNCH = pathlib.Path(__file__).parents[1] / "launch"
STARTS = ("pretrained", "scratch")


@pytest.fixture(scope="module")
def quickstart():
    sys.path.insert(0, str(LAUNCH))  # as when it is run
    module = importlib.import_module("quickstart")
    sys.path.remove(str(LAUNCH))
    module.SEEDS = (0,)
    return module


@pytest.fixture
def folder(tmp_path):
    """Two classes of twelve grey pictures that are not square."""
    rng = np.random.default_rng(0)
    for name, mean in (("dark", 60), ("light", 190)):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(12):
            pixels = np.clip(rng.normal(mean, 30, (40, 50)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "own" / name / f"{i}.png")
    return tmp_path / "own"


def test_own_images_go_through_the_whole_chain(quickstart, folder, tmp_path, capsys):
    own = quickstart.plan(str(folder), folder)
    assert (own.classes, own.images, own.tests, own.labels) == (2, 16, 8, 4)
    workdir = tmp_path / "run"
    results = quickstart.run(workdir, own, "tiny")
    starts = [f"finetune_{start}_0" for start in STARTS]
    assert [*results] == ["tokenizer", "pretrain", *starts]

    console = Console(width=100, record=True)
    console.print(quickstart.table(results, own, "own"))
    shown = console.export_text()
    for words in (
        "8 held-out images of 28 px",
        "unigram",
        "4 labels a class, pretrained",
        "chance 50.0%",
        "scratch",
    ):
        assert words in shown

    capsys.readouterr()
    taken = quickstart.seconds(workdir, results)
    assert taken > 0
    assert quickstart.run(workdir, own, "tiny") == results
    assert "is complete at step 6" in capsys.readouterr().out  # nothing ran again
    assert quickstart.seconds(workdir, results) == taken


def test_several_seeds_have_a_deviation(quickstart):
    assert quickstart.mean_and_deviation([0.5, 0.6]) == "55.0 ± 7.1 %"
    assert quickstart.mean_and_deviation([0.5]) == "50.0 %"


def test_sizes_codes_and_steps_follow_the_images(quickstart, folder):
    small = quickstart.plan(str(folder), folder)
    assert (small.side, small.patch, small.codes) == (40, 4, 32)
    photos = small._replace(images=600, side=240, patch=16, codes=256)
    assert photos.steps("pretrain") == 2400 > small.steps("pretrain")
    for stage in ("tokenizer", "pretrain", "finetune"):
        config = quickstart.recipe(stage, photos)
        assert config.model.image_size == 112 and config.steps == photos.steps(stage)
        whole = quickstart.config_lib.load(quickstart.CONFIGS / f"photos_{stage}.py")
        assert photos._replace(classes=9, labels=50).steps(stage) == whole.steps


@pytest.mark.parametrize("stage", ["tokenizer", "pretrain", "finetune"])
def test_without_own_images_the_recipes_of_the_digits_are_as_they_are(
    quickstart, stage
):
    file = quickstart.CONFIGS / f"digits_{stage}.py"
    assert quickstart.recipe(stage, None) == quickstart.config_lib.load(file)


def test_folders_called_as_splits_are_taken_as_splits(quickstart, folder, tmp_path):
    (tmp_path / "all").mkdir()
    folder.rename(tmp_path / "all" / "train")
    shutil.copytree(tmp_path / "all" / "train", tmp_path / "all" / "val")
    own = quickstart.plan(str(tmp_path / "all"), tmp_path)
    assert (own.images, own.tests, own.classes) == (24, 24, 2)
    assert own.train["split"] == "train" and own.test["split"] == "val"


def test_large_and_turned_images_are_copied_smaller_and_upright(
    quickstart, folder, tmp_path
):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    for number in (3, 5):
        file = folder / "dark" / f"{number}.png"
        Image.open(file).resize((900, 600)).save(file.with_suffix(".jpg"), exif=exif)
        file.unlink()
    copies = tmp_path / "copies"
    own = quickstart.plan(str(folder), copies)
    assert own.train["path"] == str(copies) and own.images + own.tests == 24
    assert Image.open(copies / "dark" / "3.jpg.jpg").size == (224, 336)
    assert Image.open(copies / "dark" / "0.png.jpg").size == (50, 40)
    before = {file: file.stat().st_mtime_ns for file in copies.rglob("*.jpg")}
    assert quickstart.plan(str(folder), copies) == own
    assert before == {
        file: file.stat().st_mtime_ns for file in copies.rglob("*") if file.is_file()
    }


def test_too_few_images_of_a_class_are_noticed_first(quickstart, folder):
    for file in sorted((folder / "dark").iterdir())[1:]:
        file.unlink()
    with pytest.raises(ValueError, match="'dark' has 1 images.*leave its folder out"):
        quickstart.plan(str(folder), folder)


def test_pictures_without_classes_are_no_error(quickstart, folder):
    assert quickstart.plan(str(folder / "dark"), folder).classes == 0
