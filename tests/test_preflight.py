"""The command as a person runs it, on pretended devices of the CPU.

`python -m tests.test_preflight` writes tests/golden/preflight.json anew.
"""

import importlib.util
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import jax
import pytest

from beit_jax import preflight
from tests import tiny

ROOT = pathlib.Path(__file__).parents[1]
GOLDEN = pathlib.Path(__file__).with_name("golden") / "preflight.json"
AXES = ("data", "fsdp", "tensor")
MESH = [f"--config.mesh.{axis}=2" for axis in AXES]
LITTLE = (
    "--memory=.001"  # GiB: more than the state of the tiny recipe, less than a step
)


def command(out: pathlib.Path, on: str, *more: str) -> tuple[int, str, dict]:
    """Exit code, what is said, and what --json keeps."""
    made = subprocess.run(
        [sys.executable, "-m", "beit_jax.preflight", "--on", on, "--json", str(out)]
        + ["--config", "configs/digits_pretrain.py:tiny", *more],
        cwd=ROOT,
        env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},  # compiles faster
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.exists(), made.stderr
    return made.returncode, made.stdout, json.loads(out.read_text())


def on_eight(folder: pathlib.Path) -> tuple[int, str, dict]:
    return command(folder / "found.json", "cpu:8", *MESH, LITTLE, "--nosearch")


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    return on_eight(tmp_path_factory.mktemp("preflight"))


def recorded(found: dict) -> dict:
    """What of a report must not change unseen."""
    sends = {
        f"{one['kind']} {' '.join(one['axes'])}": [one["count"], one["bytes"]]
        for one in found["collectives"]
    }
    return {"jax": jax.__version__, "collectives": sends, "state": found["state"]}


def test_a_step_that_does_not_fit_is_told_by_code_text_and_json(told):
    code, text, found = told
    assert code == preflight.TOO_LARGE and found["fits"] is False
    assert "does not fit cpu:8" in text
    (asked,) = found["tried"]
    assert asked["memory"]["needed"] > 0.001 * 2**30


def test_the_report_says_all_that_was_asked(told):
    _, text, found = told
    assert found["mesh"] == dict.fromkeys(AXES, 2) and found["devices"] == 8
    assert found["flops"]["float32"] > 0  # the encoder's, and the tokenizer's exact
    assert found["flops"]["highest"] > 0
    assert 0 < found["seconds"]["step"] == found["seconds"][found["seconds"]["bound"]]
    assert found["run"]["steps"] == 6 and found["host"]["hosts"] == 1
    assert not found["loops_of_unknown_length"]
    assert all(sentence in text.replace("\n", " ") for sentence in found["assumed"])


def test_the_state_lies_as_recorded(told):
    assert recorded(told[2])["state"] == json.loads(GOLDEN.read_text())["state"]


def test_a_step_sends_what_was_recorded(told):
    golden = json.loads(GOLDEN.read_text())
    if golden["jax"] != jax.__version__:
        pytest.skip(f"recorded with jax {golden['jax']}, whose XLA sends its own way")
    assert recorded(told[2])["collectives"] == golden["collectives"]


def test_what_may_make_it_fit_is_tried_from_the_cheapest_on():
    config = tiny.config("classify", data__batch_size=8, model__depth=1)
    tried = preflight.tries(config, jax.devices()[:1], epoch=64, search=True)
    changes = [change for change, _ in itertools.islice(tried, 4)]
    remat = {"model__remat": "full"}
    assert changes == [
        {},
        {"model__remat": "dots"},
        remat,
        remat | {"optim__accumulate": 4},  # a device alone has nothing to split
    ]


def test_a_change_that_cannot_be_made_says_why():
    config = tiny.config("classify", data__batch_size=4, model__depth=1)
    tried = preflight.tries(config, jax.devices()[:1], epoch=64, search=True)
    *_, (change, why) = itertools.islice(tried, 5)
    assert change["optim__accumulate"] == 8
    assert why.startswith("data.batch_size=4 must be a multiple of 8")


def has_libtpu() -> bool:
    path = os.environ.get("TPU_LIBRARY_PATH", "")
    return os.path.exists(path) or importlib.util.find_spec("libtpu") is not None


@pytest.mark.skipif(not has_libtpu(), reason="libtpu is not installed")
def test_a_step_compiles_for_tpus_that_are_not_here(tmp_path):
    shape = ["--config.mesh.fsdp=2", "--config.model.depth=3"]
    code, _, found = command(tmp_path / "found.json", "v5e:2x4", *shape)
    assert code == 0 and found["mesh"] == {"data": 4, "fsdp": 2, "tensor": 1}
    gathers = [one for one in found["collectives"] if one["kind"] == "all-gather"]
    assert [one["axes"] for one in gathers] == [["fsdp"]]


def as_text(found: dict) -> str:
    """JSON with an entry a line, for a readable diff."""
    parts = [f' "jax": {json.dumps(found["jax"])}']
    for name in ("collectives", "state"):
        rows = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in found[name].items()]
        parts.append(f' "{name}": {{\n' + ",\n".join(rows) + "\n }")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(as_text(recorded(on_eight(pathlib.Path(folder))[2])))
