"""The commands, as a person or a scheduler runs them."""

import json
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from beit_jax import config as config_lib
from beit_jax.run.lock import locked
from beit_jax.train import train
from tests import tiny

ROOT = pathlib.Path(__file__).parents[1]
RECIPE, STEPS = "configs/digits_tokenizer.py:tiny", 60


def command(module: str, *arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", f"beit_jax.{module}", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def training(workdir) -> subprocess.Popen:
    """The same command each time; long enough to be stopped on its way."""
    return command(
        "train", "--config", RECIPE, f"--config.steps={STEPS}", "--workdir", workdir
    )


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """(work directory, metrics) of `training` that nothing stopped, in this process."""
    workdir = tmp_path_factory.mktemp("straight")
    file, arg = RECIPE.split(":")
    config = config_lib.load(ROOT / file, arg)
    config.steps = STEPS
    return workdir, train(config, workdir, quiet=True)


def stop(
    process: subprocess.Popen, number: int, seconds: float = 0.0
) -> tuple[int, str, str]:
    """Sends a signal some seconds after the run has told of its first steps."""
    for line in process.stdout:
        if line.startswith("tokenizer  "):
            break
    time.sleep(seconds)
    process.send_signal(number)
    return finish(process)


def steps_told(out: str) -> list[int]:
    lines = [line.split() for line in out.splitlines()]
    return [int(w[1].split("/")[0]) for w in lines if w and w[0] == "tokenizer"]


def test_a_run_that_is_stopped_and_killed_is_finished_by_the_same_command(
    straight, tmp_path
):
    """To the very bits; benchmarks/kill_resume.py kills runs many times over."""
    broken = tmp_path / "broken"
    code, _, err = stop(training(broken), signal.SIGTERM)
    assert code == 75, err
    saved = max(tiny.saved_steps(broken))
    assert f"stopped at step {saved}; the same command goes on" in err
    assert "Traceback" not in err
    code, out, _ = stop(training(broken), signal.SIGKILL, random.uniform(0, 0.3))
    assert code == -signal.SIGKILL and min(steps_told(out) or [STEPS]) > saved
    code, out, err = finish(training(broken))
    assert code == 0, err
    assert min(steps_told(out)) > saved  # it did go on, not begin anew
    assert tiny.fingerprint(broken) == tiny.fingerprint(straight[0])
    told = [line["step"] for line in tiny.lines(broken)]
    assert told == [s for s in range(1, STEPS + 1) if s % 2 == 0 or s % 3 == 0]


def test_a_second_run_in_a_work_directory_is_refused_with_75(tmp_path):
    with locked(tmp_path / "run"):
        code, _, err = finish(training(tmp_path / "run"))
    assert code == 75 and "Traceback" not in err
    assert f"error: another run is going on in {tmp_path / 'run'}: process" in err
    assert not (tmp_path / "run").exists()


def test_the_evaluation_command_prints_json(straight):
    workdir, metrics = straight
    code, out, err = finish(command("evaluate", "--workdir", workdir))
    assert code == 0, err
    assert json.loads(out) == metrics


def test_a_bad_file_ends_the_run_with_its_name_and_code_65(tmp_path):
    """And at once: the threads that read ahead do not hold it up."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(20):
        Image.new("RGB", (32, 32)).save(folder / f"{number}.png")
    (folder / "7.png").write_bytes(b"")
    images = [
        f"--config.data.{name}.path={folder}" for name in ("source", "eval_source")
    ]
    recipe = "configs/cifar10_tokenizer.py"
    run = command("train", "--config", recipe, *images, "--workdir", tmp_path / "run")
    code, _, err = finish(run)
    assert code == 65 and f"{folder}/7.png: the file is empty" in err
