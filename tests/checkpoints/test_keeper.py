"""What is kept, what is found, and what happens to checkpoints that are broken."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.checkpoints import steps
from beit_jax.checkpoints.keeper import Checkpointer
from beit_jax.run.state import TrainState
from tests import tiny
from tests.test_moved import older

POSITION = {"examples": 20}
CARD = {"frame": {"name": "whole"}, "class_names": ["ant", "bee"]}


def state(value: float, ema: bool = False) -> TrainState:
    value = float(value)
    weights = {"w": jnp.full((64, 64), value), "b": jnp.full((3,), value)}
    return TrainState(
        step=jnp.asarray(int(value), jnp.int32),
        params=weights,
        opt_state=({"mu": jnp.full((64, 64), -value)},),
        model_state={},
        ema=jax.tree.map(lambda x: x + 0.5, weights) if ema else None,
    )


def opened(workdir, **settings) -> Checkpointer:
    changes = {f"checkpoint__{key}": value for key, value in settings.items()}
    return Checkpointer(workdir, tiny.config("classify", **changes), CARD)


def save(workdir, metrics, **settings) -> None:
    """Saves the steps that are the keys of `metrics`."""
    with opened(workdir, **settings) as run:
        for step, measured in metrics.items():
            run.save(step, state(step), POSITION | {"step": step}, measured)


def restored(run: Checkpointer) -> tuple[TrainState | None, list[str]]:
    return run.restore(state(0), POSITION)


def test_the_newest_and_the_best_are_kept(tmp_path):
    top1 = {1: 0.1, 2: 0.9, 3: 0.3, 4: 0.5, 5: 0.4}
    metrics = {step: {"eval/top1": value} for step, value in top1.items()}
    save(tmp_path / "high", metrics, keep=2, best="eval/top1")
    assert tiny.saved_steps(tmp_path / "high") == [2, 4, 5]
    save(tmp_path / "low", metrics, keep=1, best="eval/top1", best_mode="min")
    assert tiny.saved_steps(tmp_path / "low") == [1, 5]
    save(tmp_path / "plain", dict.fromkeys(range(1, 6)), keep=3)
    assert tiny.saved_steps(tmp_path / "plain") == [3, 4, 5]


@pytest.mark.parametrize("mode, worse", [("max", 0.1), ("min", 0.9)])
def test_what_is_no_number_is_not_the_best(mode, worse, tmp_path):
    values = {1: 0.5, 2: float("nan"), 3: worse, 4: float("nan")}
    metrics = {step: {"eval/top1": value} for step, value in values.items()}
    save(tmp_path, metrics, keep=1, best="eval/top1", best_mode=mode)
    assert tiny.saved_steps(tmp_path) == [1, 4]


def test_the_best_is_still_known_after_a_restart(tmp_path):
    settings = {"keep": 1, "best": "eval/top1"}
    save(tmp_path, {1: {"eval/top1": 0.9}, 2: {"eval/top1": 0.1}}, **settings)
    save(tmp_path, {3: None, 4: {"eval/top1": 0.2}}, **settings)
    assert tiny.saved_steps(tmp_path) == [1, 4]


def test_a_best_metric_that_is_not_measured_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"'eval/top1'.*eval/loss, eval/psnr"):
        save(tmp_path, {1: {"eval/loss": 1.0, "eval/psnr": 2.0}}, best="eval/top1")


@pytest.mark.parametrize("settings", [{"keep": 0}, {"best_mode": "high"}])
def test_impossible_settings_are_refused(settings, tmp_path):
    with pytest.raises(ValueError, match="keep=.*best_mode="):
        opened(tmp_path, **settings)


def test_a_restored_state_is_the_saved_one(tmp_path):
    with opened(tmp_path) as run:
        assert restored(run) == (None, [])  # nothing there, and nothing to say
        run.save(3, state(3), POSITION | {"step": 3})
    with opened(tmp_path) as run:
        have, notes = restored(run)
    assert notes == []
    jax.tree.map(np.testing.assert_array_equal, have, state(3))


def files_of_a_step(workdir) -> list[str]:
    """The files of step 2 that hold something, relative to it."""
    step = workdir / "checkpoints" / "2"
    files = [path for path in step.rglob("*") if path.is_file()]
    return sorted(str(f.relative_to(step)) for f in files if f.stat().st_size)


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def after_damage(workdir, file, share) -> str:
    """Cuts a file of step 2 short; whether the next start could do without it."""
    cut(workdir / "checkpoints" / "2" / file, share)
    with opened(workdir, keep=2) as run:
        have, notes = restored(run)
        run.save(2, state(2), POSITION | {"step": 2})  # the run comes by again
    with opened(workdir, keep=2) as run:
        jax.tree.map(np.testing.assert_array_equal, restored(run), (state(2), []))
    if not notes:  # Orbax does not read all that it writes
        jax.tree.map(np.testing.assert_array_equal, have, state(2))
        return "harmless"
    jax.tree.map(np.testing.assert_array_equal, have, state(1))
    (note,) = notes
    assert "cannot be read, kept as 2.damaged" in note
    assert (workdir / "checkpoints" / "2.damaged").is_dir()
    return "set aside"


def test_a_damaged_step_is_set_aside_and_the_one_before_is_used(tmp_path):
    save(tmp_path / "whole", {1: None, 2: None}, keep=2)
    outcomes = {}
    for file in files_of_a_step(tmp_path / "whole"):
        for share in (0, 0.5):
            workdir = tmp_path / f"{len(outcomes)}"
            shutil.copytree(tmp_path / "whole", workdir)
            outcomes[file, share] = after_damage(workdir, file, share)
    bad = {file for (file, _), what in outcomes.items() if what == "set aside"}
    assert bad >= {"state/_METADATA", "state/manifest.ocdbt"}, outcomes
    assert bad >= {"config/metadata", "position/metadata"}, outcomes
    assert any("/d/" in file for file in bad), outcomes  # the numbers themselves


def test_a_run_without_any_whole_checkpoint_does_not_begin_anew(tmp_path):
    save(tmp_path, {2: None})
    cut(tmp_path / "checkpoints" / "2" / "state" / "manifest.ocdbt", 0.5)
    for _ in range(2):  # nor does the next start
        with opened(tmp_path) as run, pytest.raises(ValueError, match="Repair them"):
            restored(run)


def test_what_no_save_finished_does_not_count(tmp_path):
    save(tmp_path, {1: None, 2: None}, keep=2)
    directory = tmp_path / "checkpoints"
    shutil.copytree(directory / "2", directory / "9")
    for last in ("hashes.json", "commit_success.txt"):  # a kill in the middle of a save
        (directory / "9" / last).unlink()
    (directory / "7").mkdir()
    assert steps.find_step(tmp_path) == directory / "2"
    with opened(tmp_path, keep=2) as run:
        assert int(restored(run)[0].step) == 2
        run.save(9, state(9), POSITION | {"step": 9})
    with opened(tmp_path, keep=2) as run:
        jax.tree.map(np.testing.assert_array_equal, restored(run), (state(9), []))


def test_a_step_is_found_from_anywhere_near_it(tmp_path):
    save(tmp_path, {2: None, 10: None}, keep=2)
    newest = (tmp_path / "checkpoints" / "10").resolve()
    for near in (tmp_path, newest.parent, newest, str(tmp_path)):
        assert steps.find_step(near) == newest
    assert steps.find_step(newest.parent / "2").name == "2"


def test_no_checkpoint_is_an_error_that_says_where_to_point(tmp_path):
    for nothing in (tmp_path, tmp_path / "not" / "there"):
        words = re.escape(f"no checkpoint in {nothing}") + ".*work directory"
        with pytest.raises(ValueError, match=words):
            steps.find_step(nothing)


def test_a_key_younger_than_the_checkpoint_had_its_default(tmp_path):
    older = tiny.config("classify")
    del older.optim["eps"]
    with Checkpointer(tmp_path, older, CARD) as run:
        run.save(1, state(1), POSITION | {"step": 1})
    with opened(tmp_path) as run:
        assert restored(run)[1] == []
    other = tiny.config("classify", optim__eps=1e-3)
    words = "optim.eps=1e-08, this run has 0.001"
    with Checkpointer(tmp_path, other, CARD) as run, pytest.raises(ValueError) as error:
        restored(run)
    assert words in str(error.value)


class Saved(dict):
    """A config as an earlier version saved it: plain data that knows its JSON."""

    checkpoint = tiny.config("classify").checkpoint

    def to_json(self) -> str:
        return json.dumps(self)


def test_a_run_goes_on_that_was_begun_before_its_keys_moved(tmp_path):
    before = Saved(older(tiny.config("classify"), min_scale=0.3, crop_pct=0.875))
    with Checkpointer(tmp_path, before, CARD) as run:
        run.save(1, state(1), POSITION | {"step": 1})
    crop = {"data__eval_frame__crop_pct": 0.875}
    same = tiny.config("classify", data__frame__min_scale=0.3, **crop)
    with Checkpointer(tmp_path, same, CARD) as run:
        assert restored(run)[1] == []
    words = "data.frame.min_scale=0.3, this run has 0.08"
    other = tiny.config("classify", **crop)
    with Checkpointer(tmp_path, other, CARD) as run, pytest.raises(ValueError) as error:
        restored(run)
    assert words in str(error.value)
    assert steps.restore_params(tmp_path).config["data"]["frame"]["min_scale"] == 0.3


def test_the_card_is_kept(tmp_path):
    save(tmp_path, {3: None})
    assert steps.restore_params(tmp_path).card == CARD


@pytest.mark.parametrize("ema", [True, False])
def test_the_averaged_weights_are_given_where_they_were_kept(ema, tmp_path):
    with opened(tmp_path) as run:
        run.save(4, state(4, ema), POSITION | {"step": 4})
    other = steps.restore_params(tmp_path)
    assert other.path.name == "4" and other.config["task"]["name"] == "classify"
    assert other.model_state == {}
    np.testing.assert_array_equal(other.params["b"], np.full(3, 4.5 if ema else 4.0))


def test_a_state_of_another_shape_is_refused_with_a_table(tmp_path):
    save(tmp_path, {1: None})
    want = state(0).replace(params={"w": jnp.zeros((64, 32)), "c": jnp.zeros(3)})
    with opened(tmp_path) as run, pytest.raises(ValueError) as error:
        run.restore(want, POSITION)
    text = str(error.value)
    assert "params/w: have float32[64, 64], want float32[64, 32]" in text
    assert "params/b: have float32[3], want nothing" in text
    assert "params/c: have nothing, want float32[3]" in text
