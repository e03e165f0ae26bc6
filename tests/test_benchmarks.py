"""Benchmarks and campaigns run; measured in a hurry a speed means nothing."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

FILE = pathlib.Path(__file__).parents[1] / "benchmarks" / "input_pipeline.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="pins processes to a core")
def test_the_input_pipelines_benchmark_measures_every_setting():
    command = [sys.executable, FILE, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(x) for x in done.stdout.splitlines() if x.startswith("{")]
    settings = {line["setting"] for line in lines if "setting" in line}
    assert {"faithful", "jitter on device", "fast", "batch 1024"} <= settings
    assert all(line.get("images_per_second", 1) > 0 for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    "campaign",
    [
        ("bits.py", "--flips", "2"),
        ("signals.py", "--signals", "SIGTERM"),
        ("processes.py",),
    ],
    ids=["bits", "signals", "processes"],
)
def test_every_promise_of_a_campaign_is_kept(campaign):
    file, *arguments = campaign
    command = [sys.executable, FILE.parent / "faults" / file, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    right = r"(\d+) of \1 right|\| right: "
    assert re.search(right, done.stdout)
