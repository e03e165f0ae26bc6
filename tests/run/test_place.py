"""A work directory in a bucket: what gets there, in which order, and whose it is."""

import os
import pathlib
import signal

import pytest

from beit_jax.evaluate import evaluate
from beit_jax.run import place
from beit_jax.run.place import Taken, placed
from beit_jax.run.stop import Preempted
from beit_jax.stores import Store
from beit_jax.train import train
from tests import tiny


@pytest.fixture
def store(tmp_path):
    return Store(f"memory://{tmp_path.name}/run")


def put(folder: pathlib.Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def step(number: int) -> tuple[str, ...]:
    names = ("state/d/1", "hashes.json", "a/commit_success.txt", "commit_success.txt")
    return tuple(f"checkpoints/{number}/{name}" for name in names)


def test_a_step_gets_there_when_it_is_committed_and_goes_when_it_is_gone(store):
    with placed(store.url) as run:
        run.take()
        put(run.folder, "metrics.jsonl", ".lock", *step(1)[:-1])
        run.send()
        assert store.versions().keys() == {".run", "metrics.jsonl"}
        put(run.folder, *step(1), *step(2))
        run.send()
        assert store.versions().keys() == {".run", "metrics.jsonl", *step(1), *step(2)}
        (run.folder / step(1)[-1]).unlink()  # a deletion that goes on
    assert store.versions().keys() == {"metrics.jsonl", *step(2)}


def test_what_commits_a_step_is_written_last(store):
    with placed(store.url) as run:
        run.take()
        put(run.folder, *step(1), "metrics.jsonl")
    written = [p for p in store._files.store if p.startswith(store._root)]  # in order
    assert written[0].endswith("/run/metrics.jsonl")
    assert written[-1].endswith("/run/checkpoints/1/commit_success.txt")


def test_a_run_finds_what_was_there_but_for_steps_that_were_cut_short(store):
    for name in ("metrics.jsonl", *step(1), *step(2)[:-1]):
        store.write(name, name.encode())
    with placed(store.url) as run:
        files = [path for path in run.folder.rglob("*") if path.is_file()]
        found = {path.relative_to(run.folder).as_posix() for path in files}
        assert found == {"metrics.jsonl", *step(1)}
        run.take()
    assert store.versions().keys() == {"metrics.jsonl", *step(1)}
    assert not run.folder.exists()


def test_a_run_that_is_refused_disturbs_none(store):
    with placed(store.url) as first:
        first.take()
        with pytest.raises(ValueError), placed(store.url):
            raise ValueError
        put(first.folder, "notes.txt")
        first.send()
    assert store.versions().keys() == {"notes.txt"}


def test_the_run_that_began_last_has_the_place(store, monkeypatch):
    monkeypatch.setattr(place, "EVERY_SECONDS", 0.01)
    words = f"another run has begun in {store.url}: process {os.getpid()} on"
    with pytest.raises(Taken, match=words), placed(store.url) as first:
        first.take()
        with placed(store.url) as second:
            second.take()
            first._thread.join(10)
            with pytest.raises(Taken, match=words):
                first.check()
            put(first.folder, "notes.txt")
    assert store.versions() == {}
    assert (first.folder / "notes.txt").exists()


def test_what_could_not_be_copied_stays_here_and_is_named(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "pictures").touch()  # where a folder is to be
    with pytest.raises(OSError) as told, placed(f"file://{tmp_path}/run") as run:
        run.take()
        (run.folder / "pictures").unlink()
        put(run.folder, "pictures/1.png")
    assert f"; what was not copied there is in {run.folder}" in told.value.strerror
    assert (run.folder / "pictures" / "1.png").exists()


def test_a_run_in_a_bucket_goes_on_and_ends_as_one_in_a_folder(
    store, tmp_path, before_step, monkeypatch
):
    monkeypatch.setenv("BEIT_JAX_CACHE", str(tmp_path / "cache"))
    config = tiny.config("classify")
    want = train(config, tmp_path / "run", quiet=True)
    before_step(3, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Preempted):
        train(config, store.url, quiet=True)
    before_step(None, None)
    assert step(3)[-1] in store.versions()
    assert train(config, store.url, quiet=True) == want
    assert evaluate(store.url) == evaluate(tmp_path / "run")
    assert train(config, store.url, quiet=True) == want  # it is complete
