"""A checkpoint measured by itself, on any images, and what is written of it."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from beit_jax import command
from beit_jax.checkpoints import steps
from beit_jax.evaluate import evaluate
from beit_jax.run import card
from beit_jax.train import train
from tests import tiny

NAMES = ("ant", "bee", "cat", "dog")


def images(folder, names=NAMES):
    """Three noisy images of each class; those of a class are the same every time."""
    for name in names:
        rng = np.random.default_rng(ord(name[0]))
        (folder / name).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return str(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(work directory, metrics) of a classifier of NAMES."""
    root = tmp_path_factory.mktemp("evaluate")
    source = {"name": "folder", "path": images(root / "images")}
    data = {"data__source": source, "data__eval_source": source}
    config = tiny.config("classify", steps=2, eval__pictures=2, **data)
    return root / "run", train(config, root / "run", quiet=True)


@pytest.fixture(scope="module")
def nameless(run, tmp_path_factory):
    """The same work directory from before there were cards: without names."""
    older = tmp_path_factory.mktemp("older") / "run"
    shutil.copytree(run[0], older)
    shutil.rmtree(older / "checkpoints" / "2" / "card")
    tiny.forget_hashes(older / "checkpoints" / "2")
    return older


def read(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_charts_of_its_evaluations(run):
    names = {path.name for path in (run[0] / "pictures").iterdir()}
    kinds = ("attention", "confusion", "reliability")
    assert names == {f"{kind}_0000002.png" for kind in kinds}


def test_a_report_has_the_metrics_their_details_and_pictures(run, tmp_path):
    workdir, metrics = run
    assert evaluate(workdir, out=str(tmp_path)) == metrics
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    classes = read(tmp_path / "per_class.csv")
    assert [(row["class"], row["support"]) for row in classes] == [
        (name, "3") for name in NAMES
    ]
    recall = [float(row["recall"]) for row in classes]
    assert np.mean(recall) == metrics["eval/macro_recall"]
    cells = read(tmp_path / "confusion.csv")
    right = sum(int(c["count"]) for c in cells if c["class"] == c["predicted"])
    assert right / 12 == metrics["eval/top1"]
    assert sum(int(cell["count"]) for cell in cells) == 12
    means = {
        row["average"]: float(row["f1"]) for row in read(tmp_path / "averages.csv")
    }
    assert means["micro"] == metrics["eval/top1"]
    assert means["macro"] == metrics["eval/macro_f1"]
    for name in ("confusion", "reliability"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert min(picture.size) > 300


def test_classes_of_other_images_are_found_by_their_names(run, tmp_path):
    """Of parts of the data each image has the loss that it has among all."""
    workdir, metrics = run
    parts = (("bee",), ("ant", "cat", "dog"))
    found = [evaluate(workdir, data=images(tmp_path / part[0], part)) for part in parts]
    assert [m["eval/examples"] for m in found] == [3, 9]
    loss = np.average([m["eval/loss"] for m in found], weights=[3, 9])
    np.testing.assert_allclose(loss, metrics["eval/loss"], rtol=1e-6)


def test_classes_that_a_checkpoint_does_not_know_are_refused(run, tmp_path):
    others = images(tmp_path / "images", ("ant", "emu"))
    with pytest.raises(ValueError, match=r"none of the 4 classes \(ant.*: emu"):
        evaluate(run[0], data=others)


def test_images_that_look_otherwise_are_refused_unless_that_is_wanted(run):
    workdir, metrics = run
    source = steps.read_config(workdir)["data"]["eval_source"]
    changes = {"data__eval_frame__crop_pct": 0.5, "data__eval_source": source}
    config = tiny.config("classify", **changes)
    words = r"run/checkpoints/2 was trained with frame=.*1\.0}, the recipe has .*0\.5}"
    with pytest.raises(ValueError, match=words):
        evaluate(workdir, config)
    other = evaluate(workdir, config, override_card=True)
    assert other["eval/loss"] != metrics["eval/loss"]


def test_a_checkpoint_from_before_the_cards_is_measured_too(run, nameless, capsys):
    workdir, metrics = run
    assert evaluate(nameless) == metrics
    made = card.of_checkpoint(steps.restore_params(nameless))
    kept = card.of_checkpoint(steps.restore_params(workdir))
    assert made == kept | {"class_names": []} and kept["class_names"] == list(NAMES)
    told = r"note: .* does not know the names of its classes; .*order: \['ant', 'bee'"
    assert re.search(told, capsys.readouterr().err)


def test_names_are_given_to_a_checkpoint_that_does_not_know_its_own(run, nameless):
    """And mean what its own would: those classes, in the order of the logits."""
    own = steps.read_config(run[0])["data"]["source"]["path"]
    assert evaluate(nameless, data=own, class_names=NAMES) == run[1]
    turned = evaluate(nameless, data=own, class_names=NAMES[::-1])
    assert turned["eval/loss"] != run[1]["eval/loss"]
    with pytest.raises(ValueError, match=r"class_names=\['dog', 'cat'.*'cat', 'dog'\]"):
        evaluate(nameless, class_names=NAMES[::-1])


def test_names_that_are_known_or_too_few_are_refused(run, nameless):
    with pytest.raises(ValueError, match=r"\(ant, bee.*leave out --class_names"):
        evaluate(run[0], class_names=NAMES)
    with pytest.raises(ValueError, match=r"give all 4 by --class_names.*given: 2"):
        evaluate(nameless, class_names=NAMES[:2])


def test_names_come_from_the_lines_of_a_file_too(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("tench, Tinca tinca\n great white shark\n\n", encoding="utf-8")
    given = command.names("class_names", [f"@{file}"])
    assert given == ["tench, Tinca tinca", "great white shark"]
    file.write_text("tench\r\n", encoding="utf-8-sig")  # as Windows' editors do
    assert command.names("class_names", [f"@{file}"]) == ["tench"]
    assert command.names("class_names", NAMES) == list(NAMES)
    with pytest.raises(ValueError, match="--class_names=@none.txt must name a text"):
        command.names("class_names", ["@none.txt"])
