"""A folder for timm, with its config.json: what it says, and what is read of one."""

import ast
import json

import numpy as np
import pytest

from beit_jax.checkpoints import read, write
from beit_jax.checkpoints.foreign import files, timm_config
from beit_jax.run import card
from tests.checkpoints.foreign.test_beit import WITH_TIMM, assert_same_network
from tests.checkpoints.foreign.test_families import CLASSIFIER, set_json
from tests.parity.cases import CASES
from tests.parity.conversions import CROPPING, checkpoint

WHOLE = {"name": "whole", "crop_pct": 1.0}
FRAMES = [
    {"name": "centre", "crop_pct": 0.875},
    {"name": "whole", "crop_pct": 0.95},
    {"name": "fit", "align": "centre", "fill": (128, 128, 128)},
]


def folder(tmp_path, saved=CLASSIFIER):
    write.write(saved, tmp_path / "timm", "timm")
    return tmp_path / "timm"


def config(path) -> dict:
    return json.loads((path / "config.json").read_text())


@pytest.mark.parametrize("name", WITH_TIMM)
def test_a_folder_for_timm_tells_everything(name, tmp_path):
    saved = checkpoint(CASES[name])
    back, report = read.read(folder(tmp_path, saved))
    assert not report.left and not report.notes
    assert_same_network(back, saved)
    assert card.of_checkpoint(back) == saved.card


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame["name"])
def test_timm_is_told_how_evaluation_shows_images(frame, tmp_path):
    data = {"augment": CROPPING["augment"], "eval_frame": frame}
    saved = checkpoint(CASES["mean_per_block"], "half", **data)
    back, report = read.read(folder(tmp_path, saved))
    assert not report.notes
    assert card.of_checkpoint(back) == saved.card


def test_what_timm_cannot_show_is_said(tmp_path):
    frame = {"name": "fit", "align": "top_left"}
    saved = checkpoint(CASES["mean_per_block"], eval_frame=frame)
    report = write.write(saved, tmp_path / "timm", "timm")
    assert "in the middle of a border of colour (124, 116, 104)" in "".join(
        report.notes
    )
    saved = checkpoint(CASES["mim_default_eps"])
    report = write.write(
        saved, tmp_path / "eps", "timm", ["params/lm_head/*", "params/encoder/mask_*"]
    )
    assert "timm's LayerNorms have epsilon 1e-06, these 1e-12" in report.notes


def test_a_folder_names_the_nearest_network_of_timm_and_all_that_differs(tmp_path):
    made = config(folder(tmp_path))
    assert made["architecture"] == "beit_base_patch16_224"
    assert made["model_args"]["embed_dim"] == 32
    assert made["pretrained_cfg"]["input_size"] == [3, 32, 32]
    assert made["pretrained_cfg"]["fixed_input_size"] is True
    assert made["label_names"] == [f"thing {i}" for i in range(7)]
    sizes = {"img_size": 512, "embed_dim": 1024}
    assert timm_config.architecture(sizes) == "beit_large_patch16_512"


@pytest.mark.parametrize("name", ["mean_per_block", "shared", "plain", "cls"])
def test_the_note_on_a_file_is_a_call_without_gaps(name, tmp_path):
    path = tmp_path / "timm.safetensors"
    report = write.write(checkpoint(CASES[name]), path, "timm")
    call = ast.parse(report.notes[-1].split("; images")[0], mode="eval").body
    said = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    assert said["checkpoint_path"] == str(path)
    assert ast.literal_eval(call.args[0]) in timm_config.ARCHITECTURES.values()
    assert {"img_size", "embed_dim", "depth", "num_heads", "init_values"} < said.keys()
    tables = any("position_bias_table" in name for name in files.read(path).state)
    assert said["use_rel_pos_bias"] == tables and not said["use_shared_rel_pos_bias"]


@pytest.mark.parametrize(
    "names", [["a"] * 7, {str(i): "a" for i in range(7)}], ids=["list", "dict"]
)
@pytest.mark.parametrize("place", ["top", "images", "labels", "single"])
def test_class_names_are_read_wherever_timm_has_them(names, place, tmp_path):
    path = folder(tmp_path)
    made = config(path)
    del made["label_names"], made["pretrained_cfg"]["label_names"]
    if place == "top":
        made["label_names"] = names
    elif place == "single":  # as old versions wrote it
        args = {"architecture": made["architecture"], "num_features": 32}
        made = made["pretrained_cfg"] | args | {"labels": names}
    else:
        key = {"images": "label_names", "labels": "labels"}[place]
        made["pretrained_cfg"][key] = names
    (path / "config.json").write_text(json.dumps(made))
    assert read.read(path)[0].card["class_names"] == ["a"] * 7


def test_class_names_that_do_not_fit_are_left_out_aloud(tmp_path):
    path = folder(tmp_path)
    set_json(path / "config.json", label_names=["a", "b"])
    saved, report = read.read(path)
    assert saved.card["class_names"] == []
    assert "label_names of 2 classes, not of 7: left out" in report.notes
    set_json(
        path / "config.json", label_names=[*"abcdefg"], label_descriptions={"a": "A"}
    )
    saved, report = read.read(path)
    assert saved.card["class_names"] == [*"abcdefg"]
    assert any("label_descriptions are left out" in note for note in report.notes)


def test_arguments_tell_what_shapes_do_not(tmp_path):
    saved = checkpoint(CASES["plain"])
    path = folder(tmp_path, saved)
    back, report = read.read(path)
    assert back.config["model"]["heads"] == 4 and not report.notes
    made = config(path)
    made["model_args"]["init_values"] = 0.5
    del made["model_args"]["num_heads"]
    (path / "config.json").write_text(json.dumps(made))
    back, report = read.read(path)
    assert back.config["model"]["layer_scale"] == 0.0  # it has no gammas
    assert any(note.startswith("heads=1") for note in report.notes)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"architecture": "eva02_tiny_patch14_224"}, "'eva02_tiny_patch14_224', no BE"),
        ({"model_args": {"swiglu_mlp": True}}, "swiglu_mlp, which no BEiT of ours"),
        (
            {"model_args": {"use_fc_norm": False}, "global_pool": "avg"},
            "global_pool='avg' with use_fc_norm=False",
        ),
        ({"model_args": {"img_size": 48}}, "says images of 48 px"),
        (
            {"pretrained_cfg": {"interpolation": "random", "mean": [0.5], "std": [1]}},
            "interpolation='random', none of",
        ),
    ],
)
def test_a_config_of_another_network_is_refused(values, message, tmp_path):
    path = folder(tmp_path)
    set_json(path / "config.json", **values)
    with pytest.raises(ValueError, match=message):
        read.read(path)


def test_what_timm_assumes_is_told(tmp_path):
    path = folder(tmp_path)
    images = config(path)["pretrained_cfg"]
    set_json(path / "config.json", pretrained_cfg=images | {"crop_pct": None})
    saved, report = read.read(path)
    assert saved.config["data"]["eval_frame"] == {"name": "centre", "crop_pct": 0.875}
    assert "crop_pct=0.875: timm's defaults, for config.json does not tell" in (
        report.notes
    )
    set_json(path / "config.json", pretrained_cfg=images | {"mean": 0.5, "std": 0.5})
    assert read.read(path)[0].config["model"]["pixels"] == "half"
    for wrong in ({"crop_pct": 2.0}, {"mean": "0.5"}):
        set_json(path / "config.json", pretrained_cfg=images | wrong)
        with pytest.raises(ValueError, match="config.json: (crop_pct=2.0|mean='0.5')"):
            read.read(path)


def test_a_crop_that_a_file_cannot_tell_is_told_on_both_ways(tmp_path):
    saved = checkpoint(CASES["mean_per_block"], eval_frame=WHOLE)
    path = tmp_path / "timm.safetensors"
    note = write.write(saved, path, "timm").notes[-1]
    assert "crop_mode='squash', crop_pct=1.0, interpolation='bicubic'" in note
    _, report = read.read(path)
    assert any("crop_pct=0.875: the file does not tell" in x for x in report.notes)


def test_a_ratio_gives_the_width_that_it_was_made_of():
    widths = [(dim, hidden) for dim in (49, 192, 384) for hidden in range(1, 1600)]
    for dim, hidden in widths:
        assert int(dim * timm_config._ratio(hidden, dim)) == hidden


def test_a_folder_has_no_suffix_and_a_file_has_one(tmp_path):
    with pytest.raises(ValueError, match="or be a folder, without a suffix"):
        write.choose(tmp_path / "timm.npz", "timm")
    for target in ("timm", "timm.safetensors"):
        assert write.choose(tmp_path / target, "timm") == "timm"


def test_in_a_folder_a_shared_table_stays_one(tmp_path):
    state = files.read(folder(tmp_path, checkpoint(CASES["shared"]))).state
    tables = [name for name in state if name.endswith("bias_table")]
    assert tables == ["rel_pos_bias.relative_position_bias_table"]
    assert all(np.isfinite(x).all() for x in state.values())
