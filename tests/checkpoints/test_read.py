"""One way in: what names a checkpoint, and that all who take one take any."""

import shutil

import jax
import numpy as np
import pytest

from beit_jax import config as config_lib
from beit_jax import tasks
from beit_jax.checkpoints import frozen, read, steps, write
from beit_jax.checkpoints.names import flatten
from beit_jax.evaluate import evaluate
from beit_jax.run import card, opened, warm_start
from beit_jax.run.state import TrainState
from beit_jax.targets.tokens import Tokens
from tests.tasks import runs


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """Makes a run of a task with random weights -> its work directory."""
    made = {}

    def make(name: str):
        if name not in made:
            config = runs.config(name, "pixels" if name == "pretrain" else "")
            task, params, ctx, _ = runs.start(config)
            path = made[name] = tmp_path_factory.mktemp(name)
            known = card.of(config, task, ())
            steps.save_params(path, params, ctx.model_state, config, known)
        return made[name]

    return make


@pytest.fixture(scope="module")
def foreign(ours, tmp_path_factory):
    """The same weights as another project's file -> its path."""
    made = {}

    def make(name: str):
        if name not in made:
            path = tmp_path_factory.mktemp(f"foreign_{name}") / "weights.npz"
            write.write(read.restore(ours(name)), path, "official")
            made[name] = path
        return made[name]

    return make


def test_a_run_is_found_by_its_directory_and_by_its_step(ours):
    workdir = ours("pretrain")
    step = workdir / "checkpoints" / "0"
    for path in (workdir, str(workdir / "checkpoints"), step):
        assert read.locate(path) == step
    newer = step.with_name("12")
    newer.mkdir()
    (newer / steps.COMMITTED).touch()
    assert read.step_of(read.locate(workdir)) == 12
    assert read.step_of(read.locate(step)) == 0
    (newer / steps.COMMITTED).unlink()
    newer.rmdir()


def test_other_weights_are_found_as_a_file_and_in_a_folder(foreign):
    file = foreign("classify")
    for path in (file, file.parent):
        assert read.locate(path) == path
        assert read.step_of(path) == 0


def test_a_run_comes_before_what_was_exported_into_its_folder(ours):
    workdir = ours("classify")
    (workdir / "exported.npz").touch()
    assert read.locate(workdir).name == "0"


@pytest.mark.parametrize(
    "path, words",
    [
        (
            "gone",
            "no checkpoint 'gone': name a run's .* step in it, a file .*or a repo",
        ),
        ("here/gone.npz", "no checkpoint 'here/gone.npz'"),
        (
            "here",
            "no checkpoint in .*/here; .*Nor are there weights of another project",
        ),
    ],
)
def test_where_there_is_none_it_is_said_what_there_may_be(
    path, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "notes.txt").touch()
    with pytest.raises(ValueError, match=words):
        read.locate(path)


@pytest.mark.parametrize("name", ["pretrain", "classify"])
def test_weights_and_network_are_the_same_from_a_file(name, ours, foreign):
    have, want = read.restore(foreign(name)), read.restore(ours(name))
    assert flatten(have.params).keys() == flatten(want.params).keys()
    jax.tree.map(np.testing.assert_array_equal, have.params, want.params)
    assert read.read_config(foreign(name)) == have.config
    for key in ("dim", "depth", "heads", "image_size", "rel_pos_bias", "pixels"):
        default = {"pixels": "half"}.get(key)
        assert have.config["model"][key] == want.config["model"].get(key, default)
    assert have.step == 0 and have.path == foreign(name)


def test_what_is_assumed_of_a_file_is_told_once_on_stderr(foreign, tmp_path, capsys):
    path = shutil.copy(foreign("classify"), tmp_path)
    for _ in range(2):
        read.restore(path)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: {path}: pixels='half'")


def test_the_card_of_a_file_is_complete(foreign):
    made = card.of_checkpoint(read.restore(foreign("classify")))
    want = {
        "image_size": [32, 32],
        "pool": "mean",
        "class_names": [],
        "frame": {"name": "centre", "crop_pct": 0.875},
    }
    assert {key: made[key] for key in want} == want


def fresh(name: str, **changes):
    """(config, task, a state before the first step)."""
    config = runs.config(name, **changes)
    task, params, ctx, _ = runs.start(config)
    zeros = jax.tree.map(lambda leaf: jax.numpy.zeros_like(leaf), params)
    return config, task, TrainState(0, zeros, None, ctx.model_state, None)


def test_fine_tuning_starts_from_a_pretrained_file(foreign):
    """Its norm is no fc_norm: that starts anew, as in the official code."""
    config, task, state = fresh("classify", init_from=str(foreign("pretrain")))
    now, report, doubts = warm_start.warm_start(config, task, state)
    taken, new, left = report.split("; ")
    assert taken.startswith(f"from {foreign('pretrain')}: took ")
    assert new == "fresh: fc_norm/bias, fc_norm/scale, head/bias, head/kernel"
    assert left.removeprefix("left behind: ").split(", ") == [
        "encoder/mask_token",
        "encoder/norm/bias",
        "encoder/norm/scale",
        "lm_head/bias",
        "lm_head/kernel",
    ]
    given = read.restore(foreign("pretrain")).params["encoder"]
    blocks = now.params["encoder"]["blocks"]
    np.testing.assert_array_equal(blocks["gamma_1"], given["blocks"]["gamma_1"])
    table = blocks["attn"]["rel_pos_bias"]["table"]
    np.testing.assert_array_equal(table, [given["rel_pos_bias"]["table"]] * 2)
    assert doubts == []


def test_other_pixels_than_those_of_the_weights_are_doubted(foreign):
    changes = {"init_from": str(foreign("pretrain")), "model__pixels": "imagenet"}
    _, _, (doubt,) = warm_start.warm_start(*fresh("classify", **changes))
    assert doubt.startswith(f"{foreign('pretrain')} was trained on pixels of mean (0.5")
    assert doubt.endswith("set model.pixels='half', unless that is wanted")


def test_a_head_for_classes_in_another_order_is_doubted(tmp_path):
    config = runs.config("classify")
    task, params, ctx, _ = runs.start(config)
    names = ("ant", "bee", "cat", "dog")
    known = card.of(config, task, names)
    steps.save_params(tmp_path / "run", params, ctx.model_state, config, known)
    start = fresh("classify", init_from=str(tmp_path / "run"))
    assert warm_start.warm_start(*start, names)[2] == []
    (doubt,) = warm_start.warm_start(*start, names[::-1])[2]
    assert "['ant', 'bee', 'cat', 'dog'] in this order" in doubt
    start[0].init_fresh = "head"
    assert warm_start.warm_start(*start, names[::-1])[2] == []


def test_another_number_of_classes_is_refused_with_the_way_out(foreign):
    changes = {"task__classes": 7, "data__source__num_classes": 7}
    start = fresh("classify", init_from=str(foreign("classify")), **changes)
    with pytest.raises(ValueError, match="head/kernel: have .*4.*want .*7.*") as error:
        warm_start.warm_start(*start)
    assert "init_fresh" in str(error.value)
    start[0].init_fresh = "head"
    assert "fresh: head/bias, head/kernel" in warm_start.warm_start(*start)[1]


def test_a_probe_takes_the_encoder_of_a_file(foreign, ours):
    config = runs.config("probe", task__checkpoint=str(foreign("pretrain")))
    config.model = {"image_size": 32, "pixels": "half"}
    task = tasks.build(config)
    want = read.restore(ours("pretrain")).params["encoder"]
    jax.tree.map(np.testing.assert_array_equal, task.frozen["encoder"].load(), want)
    have = frozen.records(task.frozen)
    assert len(frozen.compare(have, {"frozen_step": 0}, "an older run")) == 1


def test_a_file_is_evaluated_as_a_run_is(foreign, ours):
    config = config_lib.from_dict(read.read_config(ours("classify")))
    want = evaluate(ours("classify"), config)
    have = evaluate(foreign("classify"), config, override_card=True)
    assert have == want


def test_features_of_a_file_are_those_of_the_run(foreign, ours):
    have, want = (opened.open(make("pretrain")).encoder for make in (foreign, ours))
    assert (have.size, have.space) == (want.size, want.space)
    for name in (
        "dim",
        "depth",
        "heads",
        "grid",
        "mask_token",
        "final_norm",
        "rel_pos_bias",
    ):
        assert getattr(have.module, name) == getattr(want.module, name)


def test_a_target_takes_the_tokenizer_of_a_file(ours, tmp_path):
    file = tmp_path / "tokenizer.safetensors"
    write.write(read.restore(ours("tokenizer")), file, "safetensors")
    have, want = (Tokens((4, 4), 8, str(path)) for path in (file, ours("tokenizer")))
    assert have.frozen.path == file and have.image_size == want.image_size == (32, 32)
    trees = (tokens.frozen.load() for tokens in (have, want))
    jax.tree.map(np.testing.assert_array_equal, *trees)


def test_a_target_takes_no_encoder(foreign):
    with pytest.raises(ValueError, match="weights.npz is of task 'pretrain'; the targ"):
        Tokens((4, 4), 8, str(foreign("pretrain")))
