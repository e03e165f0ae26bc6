"""A run gives the same numbers however its devices and hosts are arranged."""

import json
import pathlib
import socket
import subprocess
import sys

import pytest

from tests import tiny

ROOT = pathlib.Path(__file__).parents[1]
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


@pytest.mark.slow
@pytest.mark.parametrize("task", tiny.TASKS)
def test_every_mesh_trains_to_the_same_weights(task):
    """Data, fsdp and tensor parallel over eight devices, against one device."""
    command = [sys.executable, "-m", "tests.mesh_worker", task]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == {"data", "fsdp", "all"}
    for mesh, got in found.items():
        assert got["learnt"] > 1e-4, (mesh, got)
        assert got["losses"] < 1e-5, (mesh, got)
        assert got["state"] < 1e-5, (mesh, got)
        assert got["metrics"] < 1e-4, (mesh, got)  # decibels, a perplexity of 32
        if task != "tokenizer":  # its convolutions are small: whole on every device
            assert (got["split"] > 0) == (mesh != "data"), (mesh, got)
    assert found["all"]["restored"] == 0  # written on eight devices, read on one


def on_two_hosts(module: str, *arguments) -> list[dict]:
    """What two processes of two devices each tell on their last lines."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", f"tests.{module}", port]
    hosts = [
        subprocess.Popen([*command, host, *map(str, arguments)], cwd=ROOT, **PIPES)
        for host in ("0", "1")
    ]
    found = []
    for host in hosts:
        out, errors = host.communicate(timeout=120)
        assert host.returncode == 0, errors[-4000:]
        found.append(json.loads(out.splitlines()[-1]))
    return found


def test_hosts_know_whose_rows_are_where_in_a_global_batch():
    """In the order of hosts and in others; and of each other's numbers."""
    for told in on_two_hosts("hosts_worker"):
        assert told["union"] == [0, 5, 7, 9]
        found = told["orders"]
        assert len({str(labels) for labels, _ in found.values()}) == 4
        for order, (labels, rows) in found.items():
            assert labels == rows, order


def test_hosts_go_on_from_the_same_step_before_a_damaged_one(tmp_path):
    one, other = on_two_hosts("keeper_worker", tmp_path)
    for found in (one, other):
        assert found["same"] and found["names"] == ["1", "2", "2.damaged"]
    assert "kept as 2.damaged: state/" in one["notes"][0]  # the one that speaks
    assert other["notes"] == []
