"""Damage to a step is seen before anything of it is used, whatever file it is in."""

import errno
import hashlib
import json
import shutil

import jax
import numpy as np
import pytest

from beit_jax.checkpoints import frozen, hashes, read, steps
from tests import tiny
from tests.checkpoints.test_keeper import POSITION, cut, opened, restored, save, state


def large(step: int):
    """A state whose arrays do not shrink, and lie in files of their own."""
    draw = np.random.default_rng(step)
    made = state(step)
    noise = {"w": draw.normal(size=(64, 64)).astype("f"), "b": made.params["b"]}
    return made.replace(params=jax.tree.map(jax.numpy.asarray, noise))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with the steps 1 and 2."""
    workdir = tmp_path_factory.mktemp("whole")
    with opened(workdir, keep=2) as run:
        for step in (1, 2):
            run.save(step, large(step), POSITION | {"step": step})
    return workdir


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def files(step) -> list:
    return sorted(path for path in step.rglob("*") if path.is_file())


def largest(step):
    return max(files(step / "state"), key=lambda path: path.stat().st_size)


def flip(path, bit: int | None = None):
    """One bit of a file, by default one in its middle."""
    data = bytearray(path.read_bytes())
    bit = len(data) * 4 if bit is None else bit
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


DAMAGE = {
    "flipped": flip,
    "cut": lambda path: cut(path, 0.5),
    "deleted": lambda p: p.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_to_any_file_is_seen_and_the_file_named(damage, run):
    step = run / "checkpoints" / "2"
    assert hashes.fault(step) == ""
    for path in files(step):
        before, name = path.read_bytes(), path.relative_to(step).as_posix()
        damage(path)
        if name == hashes.COMMITTED and not path.exists():
            assert not steps.is_committed(step)
        else:
            assert name in hashes.fault(step), name
        path.write_bytes(before)
    assert hashes.fault(step) == ""


def test_what_was_not_saved_is_damage_only_among_what_is_read(run):
    step = run / "checkpoints" / "2"
    (step / "README").touch()
    (step / "state" / ".DS_Store").touch()
    assert hashes.fault(step) == ""
    (step / "metrics").mkdir()
    (step / "metrics" / "metrics").touch()
    assert hashes.fault(step) == "metrics/metrics was not saved with it"


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_run_goes_on_from_the_step_before_damaged_arrays(damage, run):
    damage(largest(run / "checkpoints" / "2"))
    with opened(run, keep=2) as keeper:
        have, (note,) = restored(keeper)
    jax.tree.map(np.testing.assert_array_equal, have, large(1))
    assert "cannot be read, kept as 2.damaged: state/ocdbt.process_0/d/" in note


def test_a_step_is_set_aside_as_often_as_it_is_damaged(run):
    for place in ("2.damaged", "2.damaged-2", "2.damaged-3"):
        flip(largest(run / "checkpoints" / "2"))
        with opened(run, keep=2) as keeper:
            have, (note,) = restored(keeper)
            assert int(have.step) == 1 and f"kept as {place}: " in note
            keeper.save(2, large(2), POSITION | {"step": 2})
        assert (run / "checkpoints" / place / hashes.COMMITTED).exists()


@pytest.mark.parametrize("item, word", [("config", b"adamw"), ("position", b"20")])
def test_a_flipped_bit_in_a_text_is_not_blamed_on_the_user(item, word, run):
    text = run / "checkpoints" / "2" / item / "metadata"
    flip(text, 8 * text.read_bytes().index(word))
    json.loads(text.read_text())  # still is one
    with opened(run, keep=2) as keeper:
        have, (note,) = restored(keeper)
    assert int(have.step) == 1 and f"2.damaged: {item}/metadata has the SHA-256" in note


def test_a_changed_measure_does_not_cost_the_best_step(tmp_path):
    settings = {"keep": 1, "best": "eval/top1"}
    save(tmp_path, {1: {"eval/top1": 0.9}, 2: {"eval/top1": 0.2}}, **settings)
    step = tmp_path / "checkpoints" / "1"
    text = (step / "metrics" / "metrics").read_text()
    (step / "metrics" / "metrics").write_text(text.replace("0.9", "0.1"))
    with opened(tmp_path, **settings) as keeper:
        _, (note,) = restored(keeper)
        keeper.save(3, state(3), POSITION | {"step": 3}, {"eval/top1": 0.3})
    assert "kept as 1.damaged: metrics/metrics has" in note
    assert (tmp_path / "checkpoints" / "1.damaged" / "state").is_dir()
    assert tiny.saved_steps(tmp_path)[-1] == 3


READ = {
    "weights": steps.restore_params,
    "any weights": read.restore,
    "frozen": lambda path: frozen.Frozen(path).load(),
}


@pytest.mark.parametrize("name", READ)
def test_whoever_asks_for_a_damaged_step_is_told_which_others_there_are(name, run):
    step = run / "checkpoints" / "2"
    flip(largest(step))
    words = "checkpoints/2 is damaged: state/.* had .* when saved.*beside it: 1"
    with pytest.raises(ValueError, match=words):
        READ[name](run)
    READ[name](step.with_name("1"))


def test_a_config_is_read_only_if_it_is_the_one_that_was_saved(run):
    flip(largest(run / "checkpoints" / "2"))
    assert steps.read_config(run)["task"]["name"] == "classify"  # reads no arrays
    flip(run / "checkpoints" / "2" / "config" / "metadata")
    for ask in (steps.read_config, lambda path: frozen.Frozen(path).config):
        with pytest.raises(ValueError, match="2 is damaged: config/metadata has"):
            ask(run)


def test_a_step_without_hashes_is_read_and_it_is_told_once(run, capsys):
    for step in (run / "checkpoints").iterdir():
        tiny.forget_hashes(step)
    for _ in range(2):
        assert steps.restore_params(run).step == 2
    told = capsys.readouterr().err.splitlines()
    (line,) = (line for line in told if line.startswith("note"))
    assert line.startswith(
        f"note: {run / 'checkpoints' / '2'} was saved before there were hashes"
    )
    with opened(run, keep=2) as keeper:
        have, (note,) = restored(keeper)
    jax.tree.map(np.testing.assert_array_equal, have, large(2))
    assert "was saved before there were hashes" in note


@pytest.mark.parametrize("file", ["arrays", "state/_METADATA"])
def test_a_step_without_hashes_that_cannot_be_read_is_set_aside(file, run):
    step = run / "checkpoints" / "2"
    tiny.forget_hashes(step)
    (largest(step) if file == "arrays" else step / file).unlink()
    with pytest.raises(ValueError, match="reading .*/2 ended in "):
        steps.restore_params(run)
    with opened(run, keep=2) as keeper:
        have, notes = restored(keeper)
    jax.tree.map(np.testing.assert_array_equal, have, large(1))
    assert "cannot be read, kept as 2.damaged" in notes[-1]


def test_a_step_that_is_not_committed_is_told(run, capsys):
    step = run / "checkpoints" / "2"
    (step / hashes.HASHES).unlink()
    (step / hashes.COMMITTED).unlink()
    assert read.locate(run).name == "1"
    words = f"{step} is not committed, and does not count: "
    assert f"note: {words}" in capsys.readouterr().err
    with pytest.raises(ValueError, match=words):
        read.locate(step)
    with opened(run, keep=2) as keeper:
        have, (note,) = restored(keeper)
        assert int(have.step) == 1 and words in note
        keeper.save(2, large(2), POSITION | {"step": 2})
    with opened(run, keep=2) as keeper:
        jax.tree.map(np.testing.assert_array_equal, restored(keeper), (large(2), []))


def test_a_whole_step_that_has_lost_its_commit_counts_again(run):
    (run / "checkpoints" / "2" / hashes.COMMITTED).unlink()
    with opened(run, keep=2) as keeper:
        have, (note,) = restored(keeper)
    assert "has lost its commit_success.txt, but all its files are right" in note
    with opened(run, keep=2) as keeper:
        assert restored(keeper)[1] == []
    jax.tree.map(np.testing.assert_array_equal, have, large(2))


def test_what_a_kill_has_left_of_a_deletion_is_cleared_away(run):
    step = run / "checkpoints" / "1"
    (step / hashes.COMMITTED).unlink()
    largest(step).unlink()
    with opened(run, keep=2) as keeper:
        assert restored(keeper)[1] == []
        keeper.save(3, large(3), POSITION | {"step": 3})
    assert tiny.saved_steps(run) == [2, 3] and not step.exists()


def test_folders_that_no_save_has_made_are_not_cleared_away(run):
    (run / "checkpoints" / "notes").mkdir()
    with opened(run, keep=2) as keeper:
        keeper.save(3, large(3), POSITION | {"step": 3})
    assert (run / "checkpoints" / "notes").is_dir()


def test_a_keeper_makes_no_folder_before_the_first_save(tmp_path):
    with opened(tmp_path) as keeper:
        restored(keeper)
    assert [*tmp_path.iterdir()] == []


def test_a_file_in_the_way_is_told_before_the_first_step(tmp_path):
    (tmp_path / "checkpoints").touch()
    with pytest.raises(ValueError, match="checkpoints must be a folder"):
        opened(tmp_path)


def test_a_file_that_may_not_be_read_is_no_damage(run, monkeypatch):
    def refused(file, _):
        raise PermissionError(errno.EACCES, "Permission denied", file.name)

    monkeypatch.setattr(hashlib, "file_digest", refused)
    with opened(run, keep=2) as saves, pytest.raises(ValueError, match="may not be re"):
        restored(saves)
    monkeypatch.undo()
    with opened(run, keep=2) as saves:
        assert restored(saves)[1] == []
