"""A command asks for large pages once, and stays the process that was started."""

import os
import subprocess
import sys

import pytest

from beit_jax import pages

CODE = """
import os, sys
from beit_jax import pages
pages.ask()
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), *sys.argv[1:])
"""


def start(first="beit_jax.train", **environment):
    """(pid of the process that was started, what it printed)."""
    kept = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", CODE, first, "two words", "--x=1"]
    process = subprocess.Popen(
        command, env=kept | environment, stdout=subprocess.PIPE, text=True
    )
    return process.pid, process.communicate()[0].strip()


@pytest.mark.parametrize("setting", ["", "glibc.malloc.check=0"])
def test_a_setting_of_the_users_stays(setting):
    pid, told = start(GLIBC_TUNABLES=setting)
    assert told == f"{pid} {setting} beit_jax.train two words --x=1"


def test_the_process_and_its_words_stay():
    pid, told = start()
    large = "glibc.malloc.hugetlb=1"
    words = "beit_jax.train two words --x=1"
    assert told in (f"{pid} {given} {words}" for given in (large, None))


def test_a_program_that_runs_a_command_inside_is_left_alone():
    pid, told = start("mine.py")
    assert told == f"{pid} None mine.py two words --x=1"


def test_the_setting_is_told(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    assert "glibc.malloc.hugetlb=1" in pages.notes()[0]
    monkeypatch.setenv("GLIBC_TUNABLES", "")
    assert not pages.notes()
