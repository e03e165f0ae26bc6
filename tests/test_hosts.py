"""Several processes: what each is told, and that all end when one does."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest
from absl import flags

from beit_jax import hosts

ROOT = pathlib.Path(__file__).parents[1]
FAULTS = ROOT / "benchmarks" / "faults"


def given(**values) -> flags.FlagValues:
    """The flags of a command for several processes, with these values."""
    options = flags.FlagValues()
    flags.DEFINE_bool("multihost", False, "", flag_values=options)
    flags.DEFINE_string("coordinator", None, "", flag_values=options)
    for name in ("processes", "process"):
        flags.DEFINE_integer(name, None, "", flag_values=options)
    options.mark_as_parsed()
    for name, value in values.items():
        options[name].value = value
    return options


@pytest.mark.parametrize(
    "values, environment, words",
    [
        ({"processes": 2}, {}, "not given: coordinator, process"),
        ({"processes": 2, "process": 1}, {"COORDINATOR": "here"}, "must be HOST:PORT"),
        ({"process": 2}, {"COORDINATOR": "a:1", "PROCESSES": "2"}, r"in 0 \.\. 1"),
        ({}, {"PROCESSES": "two"}, "BEIT_JAX_PROCESSES='two' must be a whole number"),
        ({"multihost": True}, {}, r"JAX finds no cluster here.*--coordinator"),
    ],
)
def test_a_process_that_does_not_know_its_place_is_told(
    values, environment, words, monkeypatch
):
    for name, value in environment.items():
        monkeypatch.setenv(f"BEIT_JAX_{name}", value)
    with pytest.raises(ValueError, match=words):
        hosts.join(given(**values))


def test_one_process_of_one_waits_for_nobody(monkeypatch):
    hosts.join(given())
    monkeypatch.setenv("BEIT_JAX_PROCESSES", "1")
    hosts.join(given())
    assert not jax.distributed.is_initialized()


def test_a_command_of_one_process_is_not_done_by_several(monkeypatch):
    for name, value in {"COORDINATOR": "a:1", "PROCESSES": "2", "PROCESS": "0"}.items():
        monkeypatch.setenv(f"BEIT_JAX_{name}", value)
    with pytest.raises(ValueError, match="BEIT_JAX_PROCESSES=2: .*start it once"):
        hosts.join(flags.FlagValues())


def test_a_process_that_raises_ends_the_other_which_says_why(tmp_path):
    """benchmarks/faults/processes.py lets them fail in every way."""
    done = subprocess.run(
        [ROOT / "launch" / "local.sh", "2", sys.executable, FAULTS / "disturbed.py"]
        + ["--config", FAULTS / "tiny.py", "--workdir", tmp_path / "run"],
        env=os.environ | {"DISTURB": "raise@2@1", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 1, done.stderr
    # Either may be gone first: the other waits for its word, not for its end.
    assert " has ended with exit code 1: 15 s for the others" in done.stderr
    told = "[0] error: process 1 has ended: RuntimeError: disturbed"
    assert told in done.stderr.splitlines(), done.stderr
