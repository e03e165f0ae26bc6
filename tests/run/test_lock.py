"""Two runs never write into one work directory."""

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from beit_jax.run.lock import Busy, locked

HOLD = """
import pathlib, sys, time
from beit_jax.run.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_until_the_first_one_dies(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        words = f"another run is going on in .*/run: process {first.pid} on .*workdir"
        for _ in range(2):
            with pytest.raises(Busy, match=words), locked(tmp_path / "run"):
                pass
        first.send_signal(signal.SIGKILL)
    with locked(tmp_path / "run") as lock:
        assert lock.notes == []


def test_runs_that_do_not_train_at_the_same_time_need_no_order(tmp_path):
    for _ in range(2):
        with locked(tmp_path / "run"):
            (tmp_path / "run" / "config.json").touch()
    assert os.listdir(tmp_path / "run") == ["config.json"]


def test_a_run_that_is_refused_leaves_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    for workdir in (tmp_path / "empty", tmp_path / "a" / "b"):
        with pytest.raises(ValueError), locked(workdir):
            raise ValueError
    assert os.listdir(tmp_path) == ["empty"]
    assert os.listdir(tmp_path / "empty") == []


def test_where_there_are_no_locks_a_run_goes_on_with_a_note(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with locked(tmp_path) as lock:
        (note,) = lock.notes
        assert "cannot be locked (No locks available)" in note
        with locked(tmp_path):  # nor does the end of the other end this one
            pass
        lock.check()
    assert os.listdir(tmp_path) == []


def test_one_process_of_many_takes_the_lock(tmp_path):
    with locked(tmp_path), locked(tmp_path, enabled=False) as lock:
        lock.check()
        assert lock.notes == []


def test_a_work_directory_that_goes_away_is_noticed_and_another_run_left_alone(
    tmp_path,
):
    with contextlib.ExitStack() as others:
        with locked(tmp_path / "run") as lock:
            lock.check()
            (tmp_path / "run").rename(tmp_path / "away")
            with pytest.raises(FileNotFoundError, match="gone, or another was put"):
                lock.check()
            others.enter_context(locked(tmp_path / "run"))  # somebody else's
            with pytest.raises(FileNotFoundError):
                lock.check()
        assert os.listdir(tmp_path / "run") == [".lock"]
