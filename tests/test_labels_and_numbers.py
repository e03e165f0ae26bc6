"""Several labels and numbers an image, from a list to what is predicted of photos."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from beit_jax.evaluate import evaluate
from beit_jax.predict import predict
from beit_jax.run.parts import assemble
from beit_jax.run.predictions import PREDICTIONS
from beit_jax.train import train
from tests import tiny


@pytest.fixture
def photos(tmp_path):
    """Twelve images and a list: colours that each has, and how light it is."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["image,label,light"]
    for number in range(12):
        has = [name for bit, name in enumerate(("red", "blue")) if number >> bit & 1]
        light = 50 + 15 * number
        image = rng.integers(0, 50, (32, 32, 3), np.uint8)
        for channel, name in ((0, "red"), (2, "blue")):
            image[..., channel] += light * (name in has)
        Image.fromarray(image).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{'|'.join(has)},{light}")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return folder


def source(photos, **settings):
    return {"name": "list", "path": str(photos / "list.csv")} | settings


def run(photos, task, workdir, settings, **changes):
    images = source(photos, **settings)
    config = tiny.config(task, data__source=images, data__eval_source=images, **changes)
    return train(config, workdir, quiet=True)


def test_several_labels_are_learnt_measured_and_predicted(photos, tmp_path):
    workdir = tmp_path / "run"
    changes = {"task__classes": 2, "task__class_weights": "balanced", "steps": 2}
    metrics = run(photos, "multilabel", workdir, {"separator": "|"}, **changes)
    assert evaluate(workdir, out=str(tmp_path / "out")) == metrics
    assert {"eval/map", "eval/macro_f1", "eval/micro_f1", "eval/loss"} <= {*metrics}
    assert metrics["eval/examples"] == 12  # those without a label, too
    with (tmp_path / "out" / "per_class.csv").open() as file:
        rows = {row["class"]: row["support"] for row in csv.DictReader(file)}
    assert rows == {"blue": "6", "red": "6"}
    (one,) = predict(workdir, [photos / "3.png"])
    assert {*one.found["label"]} == {"red", "blue"}
    assert one.found["probability"].min() > 0 and one.found["probability"].sum() != 1


def test_numbers_are_learnt_measured_and_predicted(photos, tmp_path):
    workdir, images = tmp_path / "run", {"targets": ("light",), "separator": "|"}
    changes = {"task__targets": ("light",), "task__mean": (130.0,)}
    changes |= {"task__std": (50.0,), "steps": 2}
    metrics = run(photos, "regress", workdir, images, **changes)
    assert evaluate(workdir) == metrics
    assert {"eval/mae", "eval/rmse", "eval/r2", "eval/loss"} <= {*metrics}
    (one,) = found = [*predict(workdir, [photos / "3.png"], "numbers")]
    assert one.found["target"].tolist() == ["light"]
    (light,) = one.found["number"]
    assert 80 < light < 180  # the head starts at the mean
    PREDICTIONS["numbers"].write(found, tmp_path, None)
    record = json.loads((tmp_path / "numbers.jsonl").read_text())
    assert record["numbers"]["light"] == pytest.approx(light, rel=1e-5)
    assert (tmp_path / "numbers.csv").read_text().startswith("image,light\n")


def test_a_source_without_the_numbers_is_refused(photos, tmp_path):
    with pytest.raises(ValueError, match=r"'light'\), but list.csv has \(\); give"):
        run(photos, "regress", tmp_path / "run", {"separator": "|"})


def test_a_run_is_told_how_often_each_class_comes(photos, tmp_path):
    """By class folders: three of one, one of the other."""
    for number, name in enumerate(["cat", "cat", "cat", "dog"]):
        (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
        (photos / f"{number}.png").rename(tmp_path / "set" / name / f"{number}.png")
    folder = {"name": "folder", "path": str(tmp_path / "set")}
    config = tiny.config(
        "classify",
        task__classes=2,
        task__class_weights="balanced",
        data__source=folder,
        data__eval_source=folder,
    )
    np.testing.assert_allclose(assemble(config).task._weights.factors, [4 / 6, 2])
