"""W&B and MLflow are told what TensorBoard is, in one run however often it goes on."""

import json
import struct
import sys
import time

import numpy as np
import pytest

from beit_jax.lookup import needed
from beit_jax.run import boards
from beit_jax.run.writer import Writer
from beit_jax.train import train
from tests import tiny

PICTURE = {"seen": np.zeros((1, 4, 4, 3), np.uint8)}


def told(workdir, name):
    """Two starts of a run, the second from step 2 on; the id of its run."""
    for first, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        with Writer(workdir, first, True, (name,), {"seed": 7}) as writer:
            for step in steps:
                writer.scalars(step, {"train/loss": 10.0 * first + step})
            writer.pictures(steps[-1], PICTURE)
            writer.warning(steps[-1], "something is wrong")
    return json.loads((workdir / "boards.json").read_text())[name]


def test_mlflow_has_one_run_with_all_that_was_told(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = told(tmp_path, "mlflow")
    client = mlflow.MlflowClient()
    history = client.get_metric_history(run, "train/loss")
    assert sorted((m.step, m.value) for m in history) == [
        (1, 1.0), (2, 2.0), (3, 3.0), (3, 23.0), (4, 24.0)
    ]  # fmt: skip
    found = client.get_run(run).info
    assert found.status == "FINISHED" and found.run_name == tmp_path.name
    files = {one.path for one in client.list_artifacts(run)}
    assert {"config.json", "seen_0000004.png", "warning_0000004.txt"} <= files


def records(data: bytes):
    """Those of a .wandb file: LevelDB's log format after 7 bytes of its own."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        if (left := 2**15 - at % 2**15) < 7:  # the end of a block
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part of one
            yield whole
            whole = b""


def written(file, seconds=30):
    """Its records, once there is the last: wandb's own process writes them."""
    from wandb.proto.wandb_internal_pb2 import Record

    for _ in range(10 * seconds):
        found = [Record.FromString(data) for data in records(file.read_bytes())]
        if found and found[-1].WhichOneof("record_type") == "exit":
            return found
        time.sleep(0.1)
    raise AssertionError(f"{file} has no end")


def losses(found):
    """(step, loss) of the records that tell one."""
    for record in found:
        items = {
            "/".join(item.nested_key) or item.key: json.loads(item.value_json)
            for item in record.history.item
        }
        if "train/loss" in items:
            yield items["step"], items["train/loss"]


def test_wandb_has_one_run_with_all_that_was_told(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = told(tmp_path, "wandb")
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert {file.stem for file in files} == {f"run-{run}"}
    steps = [told for file in files for told in losses(written(file))]
    assert sorted(steps) == [(1, 1.0), (2, 2.0), (3, 3.0), (3, 23.0), (4, 24.0)]
    assert [*tmp_path.glob("wandb/offline-run-*/files/media/images/seen*.png")]


@pytest.mark.parametrize(
    "names, message",
    [
        (("tensorbord",), "no 'tensorbord' in log.writers; it has mlflow, wandb"),
        (("wandb",), "needs the package wandb: pip install beit_jax.wandb."),
    ],
)
def test_a_writer_that_there_is_not_is_refused_at_once(
    names, message, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=message):
        train(tiny.config("classify", log__writers=names), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_every_board_names_its_package():
    for name, board in boards.BOARDS.items():
        assert isinstance(board.package, str), name
    with pytest.raises(
        ValueError, match=r"nothing_such: pip install beit_jax\[extra\]"
    ):
        needed("nothing_such", "extra")
