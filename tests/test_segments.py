"""Maps of classes, from a run to the files of a prediction."""

import csv

import numpy as np
import pytest
from PIL import Image

from beit_jax.evaluate import evaluate
from beit_jax.predict import predict
from beit_jax.run import segments
from beit_jax.train import train
from tests import tiny

NAMES = [f"grating_{number}" for number in range(4)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("segment") / "run"
    config = tiny.config("segment", steps=2, eval__pictures=2)
    return workdir, train(config, workdir, quiet=True)


@pytest.fixture(scope="module")
def found(run, tmp_path_factory):
    """Predictions of three photos, the last one larger than the room."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, size in {"a": (32, 32), "b": (20, 30), "c": (50, 90)}.items():
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(image).save(folder / f"{name}.png")
    return [*predict(run[0], [folder], "segments")]


def test_a_run_is_measured_again_the_same(run, tmp_path):
    workdir, metrics = run
    assert {"eval/miou", "eval/pixel_accuracy", "eval/loss"} <= {*metrics}
    assert evaluate(workdir, out=str(tmp_path)) == metrics
    with (tmp_path / "per_class.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert [row["class"] for row in rows] == NAMES
    assert sum(int(row["pixels"]) for row in rows) == 12 * 32 * 32
    drawn = {path.name for path in (workdir / "pictures").iterdir()}
    assert {"segments_0000002.png", "confusion_0000002.png"} <= drawn


def test_maps_have_the_size_of_their_images(found):
    assert not any(one.problem for one in found)
    sizes = [segments.whole(one).shape for one in found]
    assert sizes == [(32, 32), (20, 30), (50, 90)]
    assert all(segments.whole(one).max() < 4 for one in found)


def test_labels_overlays_and_areas_are_written(found, tmp_path):
    segments.write(found, tmp_path)
    for number, one in enumerate(found):
        name = f"{number:06d}_{'abc'[number]}.png"
        labels = Image.open(tmp_path / "segments" / name)
        assert labels.mode == "P"
        np.testing.assert_array_equal(labels, segments.whole(one))
        overlay = Image.open(tmp_path / "overlays" / name)
        assert overlay.width > labels.width and overlay.mode == "RGB"
    with (tmp_path / "areas.csv").open() as file:
        rows = [*csv.DictReader(file)]
    for one in found:
        mine = [row for row in rows if row["image"] == one.name]
        assert {row["class"] for row in mine} <= {*NAMES}
        assert sum(int(row["pixels"]) for row in mine) == segments.whole(one).size
        assert sum(float(row["share"]) for row in mine) == pytest.approx(1, abs=1e-5)
