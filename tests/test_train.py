"""The loop: stopping, going on, starting from other weights, and going wrong."""

import functools
import os
import re
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from beit_jax.data import pipeline
from beit_jax.evaluate import evaluate
from beit_jax.run.stop import Preempted
from beit_jax.train import train
from tests import tiny


class PowerCut(Exception):
    pass


def cut_power(_):
    raise PowerCut


def terminate(_):
    os.kill(os.getpid(), signal.SIGTERM)


def run(workdir, task="classify", quiet=True, **changes):
    """Trains without evaluation, unless `changes` ask for it."""
    changes = {"data__eval_source": {}} | changes
    return train(tiny.config(task, **changes), workdir, quiet)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Task -> the work directory of its `run`, made once: to be read, or copied."""

    @functools.cache
    def workdir(task):
        path = tmp_path_factory.mktemp(task) / "run"
        run(path, task)
        return path

    return workdir


SUPERVISED = ("multilabel", "regress")  # as classify, but for the loss


@pytest.mark.parametrize(
    "task",
    [
        pytest.param(
            name, marks=[pytest.mark.slow] * (name in (*SUPERVISED, "segment"))
        )
        for name in tiny.TASKS
    ],
)
def test_an_interrupted_run_ends_bit_identical(task, tmp_path, before_step):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    test = {"data__eval_source": tiny.config(task).data.eval_source}
    metrics = run(straight, task, **test)
    assert metrics

    before_step(4, cut_power)  # steps 1 and 2 are saved, 3 is lost
    with pytest.raises(PowerCut):
        run(broken, task, **test)
    assert tiny.saved_steps(broken) == [2]
    before_step(5, terminate)
    with pytest.raises(Preempted, match="stopped at step 5"):
        run(broken, task, **test)
    assert tiny.saved_steps(broken) == [5]  # the very step, no multiple of two
    before_step(None, None)

    assert run(broken, task, **test) == metrics
    assert tiny.fingerprint(broken) == tiny.fingerprint(straight)
    parts = {path.split("/")[0] for path in tiny.fingerprint(straight)}
    assert parts >= {"step", "params", "opt_state", "ema"}
    # The codebook, and the running statistics of batch normalisation.
    assert ("model_state" in parts) == (task in ("tokenizer", "probe", "segment"))


def test_every_logged_step_is_told_once(tmp_path, before_step):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    run(straight, log__every_steps=1)
    before_step(6, cut_power)  # the lines of steps 1..5 are there, saved are 1..4
    with pytest.raises(PowerCut):
        run(broken, log__every_steps=1)
    with (broken / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "train/lo')  # as a kill may leave it
    before_step(None, None)
    run(broken, log__every_steps=1)

    told = tiny.lines(broken)
    assert [line["step"] for line in told] == [1, 2, 3, 4, 5, 6]
    assert told == tiny.lines(straight)


def test_signals_act_as_before_once_a_run_is_over(tmp_path, before_step):
    before = signal.getsignal(signal.SIGTERM)
    before_step(2, terminate)
    with pytest.raises(Preempted):
        run(tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("at", [3, 6], ids=["on the way", "at the end"])
def test_a_signal_in_an_evaluation_saves_the_step_and_owes_the_rest(
    at, tmp_path, monkeypatch
):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    test = {"data__eval_source": {"name": "synthetic", "num_examples": 20}}
    test |= {"eval__every_steps": 3, "log__every_steps": 1}
    metrics = run(straight, **test)

    real, passes = pipeline.EvalStream.batches, []

    def batches(self, shard=(0, 1)):
        passes.append(self)
        for number, batch in enumerate(real(self, shard)):
            if number == 1 and len(passes) == at // 3:
                terminate(batch)
            yield batch

    monkeypatch.setattr(pipeline.EvalStream, "batches", batches)
    with pytest.raises(Preempted, match=f"stopped at step {at}"):
        run(broken, **test)
    monkeypatch.undo()
    assert tiny.saved_steps(broken) == [at]
    assert run(broken, **test) == metrics
    assert tiny.fingerprint(broken) == tiny.fingerprint(straight)
    for name in ("train/loss", "eval/loss"):
        assert tiny.lines(broken, name) == tiny.lines(straight, name)


def spoil(batch):
    return batch | {"weight": np.full_like(batch["weight"], np.nan)}


def test_a_loss_that_is_not_finite_names_its_step(tmp_path, before_step):
    before_step(3, spoil)
    with pytest.raises(FloatingPointError, match="loss is nan at step 3"):
        run(tmp_path, log__every_steps=5)  # seen at step 4, before it is saved
    assert tiny.saved_steps(tmp_path) == [2]


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    """The loss of a step is that of the weights before it: it may still be finite."""
    with pytest.raises(FloatingPointError):
        run(tmp_path, optim__lr=1e39, checkpoint__every_steps=1)
    for step in tiny.saved_steps(tmp_path):
        for path, array in tiny.arrays(tmp_path, step).items():
            assert np.isfinite(array).all(), f"{path} of step {step}"


@pytest.mark.parametrize(
    "change, words",
    [
        ({"data__batch_size": 16}, "data.batch_size=8, this run has 16"),
        ({"optim__lr": 0.5}, "optim.lr=0.0015, this run has 0.5"),
        (
            {"data__source__num_examples": 24},
            "data.source.num_examples=20, this run has 24; "
            "data: digest_of_names_and_labels=",
        ),
    ],
    ids=["batch size", "learning rate", "data"],
)
def test_going_on_with_other_settings_is_refused(change, words, finished):
    before = tiny.fingerprint(finished("classify"))
    words = re.escape(f"was written with {words}")
    with pytest.raises(ValueError, match=words + ".*To go on.*init_from"):
        run(finished("classify"), **change)
    assert tiny.fingerprint(finished("classify")) == before


def test_a_complete_run_goes_on_when_given_more_steps(finished, tmp_path, capsys):
    workdir = shutil.copytree(finished("classify"), tmp_path / "run")
    run(workdir, steps=7, quiet=False)
    told = capsys.readouterr().out
    assert "steps=7 instead of 6: the schedule changes" in told
    assert "goes on from step 6 of 7" in told
    assert tiny.saved_steps(workdir) == [7]
    assert [line["step"] for line in tiny.lines(workdir)] == [2, 4, 6, 7]


def test_fine_tuning_starts_from_the_averaged_weights(tmp_path, capsys):
    run(tmp_path / "pretrain", "pretrain")
    start = {"init_from": str(tmp_path / "pretrain"), "model__pixels": "imagenet"}
    run(tmp_path / "finetune", quiet=False, optim__lr=0.0, optim__min_lr=0.0, **start)

    out = capsys.readouterr().out
    assert re.search("WARNING: .*pretrain/checkpoints/6 was trained on pixels of", out)
    note = re.search("note: from .*", out)[0]
    kept = (tmp_path / "finetune" / "notes.txt").read_text()
    assert note in kept and "WARNING" in kept and "parameters of" in kept
    taken, fresh, left = note.split("; ")
    assert re.search(r"pretrain/checkpoints/6: took [1-9]\d* parameters", taken)
    assert fresh.startswith("fresh: ") and "head/kernel" in fresh
    assert left.startswith("left behind: ") and "encoder/mask_token" in left
    have, want = tiny.arrays(tmp_path / "finetune"), tiny.arrays(tmp_path / "pretrain")
    name = "encoder/patch_embed/proj/kernel"
    np.testing.assert_array_equal(have[f"params/{name}"], want[f"ema/{name}"])
    assert (want[f"params/{name}"] != want[f"ema/{name}"]).any()
    table = want["ema/encoder/rel_pos_bias/table"]
    copies = have["params/encoder/blocks/attn/rel_pos_bias/table"]
    np.testing.assert_array_equal(copies, np.stack([table, table]))


def test_positions_made_for_another_grid_are_told(finished, tmp_path, capsys):
    start = {"init_from": str(finished("pretrain")), "model__image_size": 48}
    run(tmp_path, quiet=False, steps=1, **start)
    assert "positions resized from 4x4 to 6x6 patches" in capsys.readouterr().out


def test_a_tokenizer_trains_on_with_the_codes_of_another(finished, tmp_path):
    first = finished("tokenizer")
    still = {"optim__lr": 0.0, "optim__min_lr": 0.0, "model__decay": 1.0}
    still |= {"model__restart_below": 0.0, "init_from": str(first)}
    run(tmp_path, "tokenizer", **still)
    have, want = tiny.arrays(tmp_path), tiny.arrays(first)
    name = "model_state/codebook/quantizer/cluster_size"
    np.testing.assert_array_equal(have[name], want[name])
    assert (want[name] != 1).any()


def test_a_run_is_measured_at_another_size(tmp_path):
    test = {"data__eval_source": {"name": "synthetic", "num_examples": 12}}
    metrics = run(tmp_path, **test)
    config = tiny.config("classify", model__image_size=48, **test)
    larger = evaluate(tmp_path, config)
    assert larger.keys() == metrics.keys() and np.isfinite(larger["eval/loss"])
    assert larger["eval/loss"] != metrics["eval/loss"]


def test_a_run_is_not_measured_with_a_tokenizer_that_trained_on(finished, tmp_path):
    tokenizer = shutil.copytree(finished("tokenizer"), tmp_path / "tokenizer")
    target = {"name": "tokens", "checkpoint": str(tokenizer)}
    test = {"data__eval_source": {"name": "synthetic", "num_examples": 12}}
    run(tmp_path / "run", "pretrain", task__target=target, **test)
    evaluate(tmp_path / "run")
    run(tokenizer, "tokenizer", steps=7)
    with pytest.raises(ValueError, match="another frozen target: .*/6, .*/7 has"):
        evaluate(tmp_path / "run")


def test_weights_that_do_not_fit_are_named_with_both_shapes(finished, tmp_path):
    start = {"init_from": str(finished("classify"))}
    with pytest.raises(ValueError) as error:
        run(tmp_path / "large", model__dim=64, **start)
    assert "encoder/cls_token: have [1, 1, 32], want [1, 1, 64]" in str(error.value)
    assert "init_fresh" in str(error.value)
    assert not (tmp_path / "large").exists()  # a run that is refused leaves nothing
    start |= {"task__classes": 7, "data__source__num_classes": 7}
    with pytest.raises(ValueError, match="head/kernel: have .*4.*want .*7"):
        run(tmp_path / "seven", **start)
    run(tmp_path / "seven", init_fresh="head", **start)
    assert tiny.arrays(tmp_path / "seven")["params/head/kernel"].shape[1] == 7


def test_frozen_weights_are_never_saved(finished, tmp_path):
    tokenizer = finished("tokenizer")
    target = {"name": "tokens", "checkpoint": str(tokenizer)}
    run(tmp_path, "pretrain", task__target=target)
    saved = tiny.arrays(tmp_path)
    kinds = {"/".join(path.split("/")[:2]) for path in saved if path != "step"}
    assert {kind for kind in kinds if not kind.startswith("opt_state")} == {
        f"{part}/{name}"
        for part in ("params", "ema")
        for name in ("encoder", "lm_head")
    }
    frozen = [a.shape for k, a in tiny.arrays(tokenizer).items() if "codebook" in k]
    shapes = [array.shape for array in saved.values()]
    assert frozen and not {s for s in frozen if len(s) == 2} & set(shapes)


def test_skipped_images_are_counted_and_listed_once(tmp_path):
    """In training and in evaluation; a restart lists none of them again."""
    rng = np.random.default_rng(0)
    for number in range(12):
        folder = tmp_path / "images" / f"{number % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "11.png").write_bytes(b"no image")
    source = {"name": "folder", "path": str(tmp_path / "images")}
    changes = {"data__source": source, "data__eval_source": source}
    changes |= {"data__on_bad": "skip", "data__max_bad": 0.1}
    changes["evals"] = {"again": {"source": source}}
    workdir = tmp_path / "run"
    for steps in (4, 6):
        config = tiny.config("classify", steps=steps, **changes)
        metrics = train(config, workdir, quiet=True)
        for name in ("eval", "eval_again"):
            assert metrics[f"{name}/examples"] == 11
            assert metrics[f"{name}/skipped"] == 1
        for name in ("skipped_0", "skipped_eval_0", "skipped_eval_again_0"):
            (line,) = (workdir / f"{name}.txt").read_text().splitlines()
            assert line.startswith(f"{folder / '11.png'}: no image that can be read")
    assert tiny.lines(workdir, "train/skipped")[-1]["train/skipped"] == 1
