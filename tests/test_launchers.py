"""The scripts that start runs elsewhere, with stand-ins for what is only there."""

import functools
import os
import pathlib
import re
import signal
import subprocess
import time
from operator import getitem

import pytest
import yaml

from beit_jax import command
from beit_jax import config as config_lib

ROOT = pathlib.Path(__file__).parents[1]
LAUNCH = ROOT / "launch"


@pytest.fixture
def stand_in(tmp_path):
    """`stand_in(name, body)`: a program of that name; returns the environment."""
    (tmp_path / "bin").mkdir()

    def make(name: str, body: str) -> dict[str, str]:
        program = tmp_path / "bin" / name
        program.write_text(f"#!/usr/bin/env bash\n{body}\n")
        program.chmod(0o755)
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        return os.environ | {"PATH": path, "SAID": str(tmp_path / "said")}

    return make


def said(tmp_path) -> list[str]:
    file = tmp_path / "said"
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize("script", sorted(LAUNCH.glob("*.sh")), ids=lambda p: p.name)
def test_a_script_can_be_read_by_bash(script):
    assert subprocess.run(["bash", "-n", script]).returncode == 0


@pytest.mark.parametrize("last", [0, 1, 70])
def test_a_command_begins_anew_while_it_ends_preempted(last, tmp_path):
    body = (
        f"echo x >> {tmp_path}/said; [ $(wc -l < {tmp_path}/said) = 3 ] && exit {last}"
    )
    run = [LAUNCH / "again.sh", "bash", "-c", f"{body}; exit {command.PREEMPTED}"]
    assert subprocess.run(run).returncode == last
    assert len(said(tmp_path)) == 3


def test_a_signal_to_a_command_that_would_begin_anew_ends_it(tmp_path):
    body = (
        f"trap 'exit 75' TERM; echo x >> {tmp_path}/said; while true; do sleep .1; done"
    )
    with subprocess.Popen([LAUNCH / "again.sh", "bash", "-c", body]) as run:
        while not said(tmp_path):
            time.sleep(0.01)
        run.send_signal(signal.SIGTERM)
    assert run.returncode == 75 and len(said(tmp_path)) == 1


@pytest.mark.parametrize("code", [0, 75, 78])
def test_slurm_requeues_what_was_preempted(code, stand_in, tmp_path):
    stand_in("srun", f'echo "srun $*" >> "$SAID"; exit {code}')
    there = stand_in("scontrol", 'echo "scontrol $*" >> "$SAID"')
    run = [LAUNCH / "slurm.sh", "--config", "a recipe.py"]
    done = subprocess.run(run, env=there | {"SLURM_JOB_ID": "12"})
    assert done.returncode == code
    started, *after = said(tmp_path)
    assert started.endswith("-m beit_jax.train --multihost --config a recipe.py")
    assert after == (["scontrol requeue 12"] if code == command.PREEMPTED else [])


def test_every_host_of_a_slice_gets_the_code_and_the_command(stand_in, tmp_path):
    stand_in("git", "exit 0")
    there = stand_in(
        "gcloud", 'printf "%s " "${@//$\'\\n\'/ }" >> "$SAID"; echo >> "$SAID"'
    )
    run = [LAUNCH / "tpu_pod.sh", "--config", "a recipe.py"]
    done = subprocess.run(run, env=there, capture_output=True, text=True)
    assert done.returncode and "TPU_NAME" in done.stderr
    place = {"TPU_NAME": "slice", "ZONE": "here"}
    subprocess.run(run, env=there | place, check=True)
    copied, installed, started = said(tmp_path)
    assert "scp" in copied and "slice:beit_jax.tar.gz" in copied
    for line in (copied, installed, started):
        assert "--worker=all" in line and "--zone=here" in line
    assert '-e ".[tpu]"' in installed
    assert "again.sh" in started
    assert "beit_jax.train --multihost '--config' 'a recipe.py'" in started


def test_the_set_of_jobs_asks_for_the_chips_of_its_topology():
    jobs = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    (slices,) = jobs["spec"]["replicatedJobs"]
    job = slices["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    down, across = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert job["parallelism"] == job["completions"]
    assert job["parallelism"] * chips == int(down) * int(across)
    assert {m["name"] for m in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }
    changes = dict(a[2:].split("=", 1) for a in container["args"] if "=" in a)
    config = config_lib.load(ROOT / changes["config"])
    for key in changes.keys() - {"config", "workdir"}:
        *sections, name = key.split(".")[1:]
        assert name in {*functools.reduce(getitem, sections, config), "data_dir"}, key


def test_the_image_knows_the_devices_that_there_are_extras_for():
    lines = (LAUNCH / "Dockerfile").read_text()
    for device in ("cuda", "tpu"):
        assert f'"{device}": [' in (ROOT / "setup.py").read_text()
        assert re.search(rf"cuda \| tpu|{device}\)", lines)
    for copied in re.findall(r"^COPY (.+) \S+$", lines, re.M):
        for name in copied.split():
            assert (ROOT / name).exists(), name
