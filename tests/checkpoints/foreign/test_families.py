"""What is noticed about checkpoints that are not quite what they should be."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.checkpoints import names, read, write
from beit_jax.checkpoints.foreign import families, files
from beit_jax.checkpoints.foreign.rules import Hints
from beit_jax.run import card
from beit_jax.run.opened import Opened
from tests.parity.cases import CASES
from tests.parity.conversions import checkpoint

CLASSIFIER = checkpoint(CASES["mean_per_block"], pixels="half")
PLAIN = checkpoint(CASES["plain"], pixels="half")

INDEX_BUFFERS = [f"blocks.{i}.attn.relative_position_index" for i in (0, 1)]


def written(folder, to, saved=CLASSIFIER):
    path = folder / {"hf": "hf"}.get(to, f"{to}.safetensors")
    write.write(saved, path, to)
    return path


def changed(folder, change, saved=CLASSIFIER, to="official"):
    """A file with other arrays."""
    found = files.read(written(folder, to, saved))
    state = {name: np.array(x) for name, x in found.state.items()}
    path = folder / "changed.safetensors"
    files.write(path, change(state) or state, found.texts.get("metadata", {}))
    return path


def set_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("to", ["official", "hf"])
@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "backbone.", "_orig_mod.", "module._orig_mod."]
)
def test_prefixes_of_wrappers_are_taken_off_aloud(tmp_path, to, prefix):
    path = changed(tmp_path, lambda s: {prefix + k: x for k, x in s.items()}, to=to)
    saved, report = read.read(path)
    assert saved.config["task"]["classes"] == 7
    assert any("names are taken without" in note for note in report.notes)


def test_wrappers_within_and_counts_of_averages_are_taken_off(tmp_path):
    def wrap(state):
        inner = {k.replace("blocks.0.", "blocks.0._orig_mod."): state[k] for k in state}
        made = {f"module.{name}": array for name, array in inner.items()}
        return made | {"n_averaged": np.int64(3)}

    saved, report = read.read(changed(tmp_path, wrap))
    assert_same(saved, read.read(written(tmp_path / "b", "official"))[0])
    assert "names are taken without '_orig_mod.', 'module.'" in report.notes


def test_a_wrapper_that_makes_two_of_one_name_stays(tmp_path):
    def twice(state):
        state["_orig_mod.cls_token"] = state["cls_token"]

    with pytest.raises(ValueError, match=r"would be lost: _orig_mod\.cls_token"):
        read.read(changed(tmp_path, twice))


def assert_same(saved, want):
    leaves, wanted = (names.flatten(one.params) for one in (saved, want))
    assert leaves.keys() == wanted.keys()
    assert all(np.array_equal(leaves[name], wanted[name]) for name in wanted)


def test_a_norm_that_the_head_does_not_follow_is_left_to_the_user(tmp_path):
    def add(state):
        for leaf in ("weight", "bias"):
            state[f"norm.{leaf}"] = state[f"fc_norm.{leaf}"]

    path = changed(tmp_path, add)
    with pytest.raises(ValueError, match=r"--allow 'norm\.\*'.*convert it first"):
        read.restore(path)
    saved, _ = read.read(path, allow=["norm.*"])
    assert "norm" not in saved.params["encoder"] and "fc_norm" in saved.params


def test_the_second_prediction_of_beit_v2_is_left_behind_aloud(tmp_path):
    def add(state):
        state["cls_pt_layers.0.norm1.weight"] = state["fc_norm.weight"]

    _, report = read.read(changed(tmp_path, add))
    assert report.ignored == [*INDEX_BUFFERS, "cls_pt_layers.0.norm1.weight"]
    assert any("second prediction, cls_pt_*" in note for note in report.notes)


def test_a_path_with_dashes_does_not_ask_for_flags(tmp_path):
    folder = tmp_path / "models--owner--name"  # as in the hub's cache
    folder.mkdir()
    path = changed(
        folder, lambda s: {k: x for k, x in s.items() if k != "fc_norm.bias"}
    )
    with pytest.raises(ValueError, match=r"lacks fc_norm\.bias") as caught:
        read.restore(path)
    assert "convert it first" not in str(caught.value)


def test_two_kinds_of_tables_are_refused(tmp_path):
    def add(state):
        table = state["blocks.0.attn.relative_position_bias_table"]
        state["rel_pos_bias.relative_position_bias_table"] = table

    with pytest.raises(ValueError, match="a shared table .* and one in each block"):
        read.read(changed(tmp_path, add))


def test_heads_are_told_once(tmp_path):
    with pytest.raises(ValueError, match=r"--heads=2, but .* tells of 4"):
        read.read(written(tmp_path, "official"), Hints(heads=2))
    path = written(tmp_path, "timm", PLAIN)
    saved, report = read.read(path)  # nothing tells
    assert saved.config["model"]["heads"] == 1
    assert any(note.startswith("heads=1") for note in report.notes)
    assert read.read(path, Hints(heads=4))[0].config["model"]["heads"] == 4


@pytest.mark.parametrize("name", ["head.weight", "cls_token", "blocks.0.attn.q_bias"])
def test_arrays_that_make_no_network_are_refused(tmp_path, name):
    def cut(state):
        state[name] = state[name][..., :-1]

    with pytest.raises(ValueError, match=r"changed\.safetensors"):
        saved, _ = read.read(changed(tmp_path, cut))
        Opened(saved).network()


def test_a_square_of_positions_is_not_taken_for_a_rectangle(tmp_path):
    path = written(tmp_path, "timm", PLAIN)  # 4x4 patches are as many as 2x8
    saved, _ = read.read(path, Hints((16, 64), heads=4))
    opened = Opened(saved, image_size=(16, 64))
    assert opened.notes == ("positions of 32x32 px resized to those of 16x64 px",)
    saved = opened.adapted()
    assert not np.array_equal(
        saved.params["encoder"]["pos_embed"], PLAIN.params["encoder"]["pos_embed"]
    )


def test_one_of_ours_is_resized_and_knows_the_rest(tmp_path):
    path = written(tmp_path, "safetensors")
    opened = Opened(read.restore(path), image_size=48)
    saved = opened.adapted()
    assert saved.config["model"]["image_size"] == 48
    assert saved.card["image_size"] == [48, 48]
    opened.network()
    Opened(saved).network()
    with pytest.raises(ValueError, match="knows its heads and pixels"):
        read.read(path, Hints(pixels="imagenet"))


def test_a_file_of_transformers_is_read_with_the_configs_beside_it(tmp_path):
    folder = written(tmp_path, "hf")
    set_json(folder / "config.json", layer_norm_eps=1e-3)
    saved, _ = read.read(folder / "model.safetensors")
    assert saved.config["model"]["norm_eps"] == 1e-3
    assert saved.card["class_names"][6] == "thing 6"
    (folder / "config.json").unlink()
    saved, report = read.read(folder)
    assert saved.config["model"]["norm_eps"] == 1e-12
    assert any(note.startswith("norm_eps=1e-12") for note in report.notes)


@pytest.mark.parametrize(
    "file, values, message",
    [
        ("preprocessor_config", {"resample": 0}, "resample=0, none of PIL's"),
        ("preprocessor_config", {"image_std": [1, 2, 3]}, "name the nearest by"),
        (
            "preprocessor_config",
            {"size": 20, "do_center_crop": True},
            "cuts 32 px out of images of 20 px",
        ),
        ("config", {"hidden_act": "relu"}, "hidden_act='relu', no BEiT"),
        ("config", {"image_size": 64}, "says images of 64 px"),
        ("config", {"image_size": "32"}, "image_size='32', which is no number"),
        ("config", {"image_size": [32]}, r"image_size=\[32\], which is no number"),
        ("config", {"layer_norm_eps": "x"}, "layer_norm_eps='x', which is no number"),
    ],
)
def test_configs_that_ours_cannot_follow_are_refused(tmp_path, file, values, message):
    folder = written(tmp_path, "hf")
    set_json(folder / f"{file}.json", **values)
    with pytest.raises(ValueError, match=message):
        read.read(folder)


def test_the_users_pixels_win_over_those_of_no_name(tmp_path):
    folder = written(tmp_path, "hf")
    set_json(folder / "preprocessor_config.json", image_std=[1, 2, 3])
    saved, _ = read.read(folder, Hints(pixels="imagenet"))
    assert saved.config["model"]["pixels"] == "imagenet"
    set_json(folder / "preprocessor_config.json", do_normalize=False)
    assert read.read(folder)[0].config["model"]["pixels"] == "unit"


def test_a_run_without_a_network_of_its_own_is_not_exported(tmp_path):
    config = {"task": {"name": "probe"}, "model": {"image_size": 32}}
    saved = CLASSIFIER._replace(params={"head": jnp.ones(3)}, config=config)
    with pytest.raises(ValueError, match="is of task 'probe'.*orbax or safetensors"):
        write.write(saved, tmp_path / "x.npz", "official")


@pytest.mark.parametrize(
    "metadata", ["{", "{}", '{"config": {}, "card": {}, "position": {"step": "a"}}']
)
def test_a_file_that_says_it_is_ours_must_be(tmp_path, metadata):
    files.write(
        tmp_path / "x.safetensors", {"params/a": np.ones(1)}, {families.OWN: metadata}
    )
    with pytest.raises(ValueError, match=r"x\.safetensors: its metadata"):
        read.read(tmp_path / "x.safetensors")


@pytest.mark.parametrize("names", [("a",), ("params", "params/a"), ("params",)])
def test_names_of_ours_make_a_tree(tmp_path, names):
    said = '{"config": {}, "card": {}, "position": {"step": 0}}'
    state = {name: np.ones(1) for name in names}
    files.write(tmp_path / "x.safetensors", state, {families.OWN: said})
    with pytest.raises(ValueError, match=r"x\.safetensors has (no param|both)"):
        read.read(tmp_path / "x.safetensors")


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(files.safetensors_file, "write", fail)
    with pytest.raises(OSError, match="no space"):
        write.write(CLASSIFIER, tmp_path / "hf", "hf")
    assert not list(tmp_path.iterdir())


def test_a_run_is_told_that_an_epsilon_differs():
    model = CLASSIFIER.config["model"]
    assert card.doubts(CLASSIFIER, model) == []
    (said,) = card.doubts(CLASSIFIER, model | {"norm_eps": 1e-3})
    assert "norm_eps=1e-06, this run has 0.001" in said
    (said,) = card.doubts(CLASSIFIER, model | {"pixels": "imagenet"})
    assert "model.pixels='half'" in said
