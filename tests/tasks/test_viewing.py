"""Test-time augmentation: which views, and that predictions are their mean."""

import jax
import numpy as np
import pytest
from PIL import Image

from beit_jax import config as config_lib
from beit_jax.evaluate import evaluate
from beit_jax.predict import predict
from beit_jax.tasks.viewing import VIEWS, Viewing
from beit_jax.train import train
from tests import tiny
from tests.tasks import runs

CENTRE = {"name": "centre", "crop_pct": 0.5}


def data(frame=CENTRE):
    return config_lib.new(data={"eval_frame": frame}).data


@pytest.mark.parametrize("tta", VIEWS)
def test_the_first_view_is_the_usual_one_and_all_have_its_size(tta):
    viewing = Viewing(tta, data(), (4, 6))
    image = np.random.default_rng(0).random((2, *viewing.shown, 3))
    views = viewing(image)
    assert viewing.shown == ((8, 12) if tta in ("five", "ten") else (4, 6))
    assert all(view.shape == (2, 4, 6, 3) for view in views)
    centre = image[:, 2:6, 3:9] if tta in ("five", "ten") else image
    np.testing.assert_array_equal(views[0], centre)
    assert len({view.tobytes() for view in views}) == len(views)
    assert len(views) == {"": 1, "flip": 2, "five": 5, "ten": 10}[tta]


@pytest.mark.parametrize("frame", [CENTRE | {"crop_pct": 1.0}, {"name": "fit"}])
def test_crops_without_room_are_refused(frame):
    with pytest.raises(ValueError, match="must be 'centre' with a crop_pct below 1"):
        Viewing("five", data(frame), (4, 4))
    Viewing("flip", data(frame), (4, 4))


def test_a_classifier_tells_the_mean_of_probabilities():
    plain = runs.config("classify")
    task, params, ctx, batch = runs.start(plain)
    both, *_ = runs.start(runs.config("classify", task__tta="flip"))
    tell = jax.jit(task.predict, static_argnums=0)
    mirrored = batch | {"image": batch["image"][:, :, ::-1]}
    sides = [
        tell("labels", params, b, ctx)["log_probability"] for b in (batch, mirrored)
    ]
    got = jax.jit(both.predict, static_argnums=0)("labels", params, batch, ctx)
    wanted = np.exp(sides).mean(0)
    np.testing.assert_allclose(np.exp(got["log_probability"]), wanted, rtol=1e-5)
    rows = jax.jit(both.eval_step)(params, batch, ctx)
    nll = -np.log(wanted[np.arange(4), batch["label"]])
    np.testing.assert_allclose(rows["nll"], nll, rtol=1e-5)


@pytest.mark.parametrize("name", ["multilabel", "regress"])
def test_labels_and_numbers_are_means_too(name):
    task, params, ctx, batch = runs.start(runs.config(name))
    both, *_ = runs.start(runs.config(name, task__tta="flip"))
    what = {"multilabel": "score", "regress": "found"}[name]
    mirrored = batch | {"image": batch["image"][:, :, ::-1]}
    step = jax.jit(task.eval_step)
    sides = [step(params, b, ctx)[what] for b in (batch, mirrored)]
    got = jax.jit(both.eval_step)(params, batch, ctx)[what]
    np.testing.assert_allclose(got, np.mean(sides, axis=0), rtol=1e-4, atol=1e-6)


def test_commands_take_views(tmp_path):
    config = tiny.config("classify", steps=1, data__eval_frame__crop_pct=0.5)
    plain = train(config, tmp_path / "run", quiet=True)
    some = ("", "flip", "ten")
    seen = {tta: evaluate(tmp_path / "run", tta=tta) for tta in some}
    assert seen[""] == plain
    assert len({one["eval/loss"] for one in seen.values()}) == len(some)
    Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (80, 64, 3), np.uint8)
    ).save(tmp_path / "a.png")
    found = [[*predict(tmp_path / "run", [tmp_path / "a.png"], tta=t)][0] for t in some]
    told = {one.found["probability"].tobytes() for one in found}
    assert len(told) == len(some)
    with pytest.raises(
        ValueError, match="features is of one view: leave out --tta=flip"
    ):
        predict(tmp_path / "run", [tmp_path / "a.png"], "features", tta="flip")
