"""The quickstart, a few steps of everything."""

import importlib.util
import pathlib

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

LAUNCH = pathlib.Path(__file__).parents[1] / "launch"


@pytest.fixture(scope="module")
def quickstart():
    spec = importlib.util.spec_from_file_location("quick", LAUNCH / "quickstart.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
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
    classes = quickstart.count_classes(str(folder))
    assert classes == 2
    workdir = tmp_path / "run"
    results = quickstart.run(workdir, str(folder), classes, "tiny")
    starts = ["finetune_pretrained_0", "finetune_scratch_0"]
    assert [*results] == ["tokenizer", "pretrain", *starts]

    console = Console(width=100, record=True)
    console.print(quickstart.table(results, str(folder)))
    shown = console.export_text()
    for words in ("PSNR", "unigram", "5 labels a class, pretrained", "scratch"):
        assert words in shown

    capsys.readouterr()
    assert quickstart.run(workdir, str(folder), classes, "tiny") == results
    assert "is complete at step 6" in capsys.readouterr().out  # nothing ran again


def test_too_few_images_of_a_class_are_noticed_first(quickstart, folder):
    for file in sorted((folder / "dark").iterdir())[3:]:
        file.unlink()
    with pytest.raises(ValueError, match="labels_per_class|5"):
        quickstart.count_classes(str(folder))


def test_pictures_without_classes_are_no_error(quickstart, folder):
    assert quickstart.count_classes(str(folder / "dark")) == 0
