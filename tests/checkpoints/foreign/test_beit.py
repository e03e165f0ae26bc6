"""Names of BEiT in the official code, in timm and in transformers, both ways."""

import json
import pathlib

import flax.linen as nn
import jax
import numpy as np
import pytest

from beit_jax import config as config_lib
from beit_jax import tasks
from beit_jax.checkpoints import names, write
from beit_jax.checkpoints.foreign import beit, beit_names, families, files, rules
from beit_jax.checkpoints.foreign.rules import Hints
from beit_jax.checkpoints.names import flatten
from beit_jax.run import card
from beit_jax.run.opened import Opened
from tests.models import official
from tests.parity.cases import CASES
from tests.parity.conversions import CROPPING, checkpoint
from tests.parity.conversions import hints as told

ORACLES = ("mim_v1", "mim_v1_abs", "finetune_v1", "finetune_v1_cls", "timm_beit")
ORACLES += ("beit2_pretrain", "beit2_pretrain_unshared")
HF_ORACLES = ("hf_mim", "hf_cls")
BEIT = [name for name, case in CASES.items() if not case.kind.startswith("dvae")]
# transformers gives biases of 0 to a network that has none.
WITH_BIASES = [name for name in BEIT if CASES[name].model.get("qkv_bias", True)]
# Those that timm has a place for all of.
WITH_TIMM = [name for name in BEIT if CASES[name].kind != "mim"]
# Evaluation keeps the middle 56 of 64 pixels, and sees the [CLS] token.
CROPPED = CASES["cls_plain"]._replace(image=(56, 56))


def hints(meta) -> Hints:
    meta = meta.get("config", meta)
    size = meta.get("img_size") or meta.get("image_size")
    size = size if isinstance(size, int) else tuple(size)
    return Hints(size, meta.get("num_heads") or meta.get("num_attention_heads"))


def given(state, texts=None, path="beit.pth"):
    return files.Found(pathlib.Path(path), state, texts or {})


def states(oracle):
    """The state dict that was recorded, buffers included, and its settings."""
    arrays, meta = official.load(oracle)
    parts = [official.group(arrays, part) for part in ("param", "buffer")]
    return parts[0] | parts[1], meta


def network(name):
    """A random network as a checkpoint of ours, and what its files do not tell."""
    return checkpoint(CASES[name]), told(CASES[name])._replace(pixels="imagenet")


def assert_same(one, two):
    one, two = flatten(one), flatten(two)
    assert one.keys() == two.keys()
    for name in one:
        assert one[name].dtype == two[name].dtype, name
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


@pytest.mark.parametrize("oracle", ORACLES)
def test_an_official_state_comes_back_byte_for_byte(oracle, tmp_path):
    state, meta = states(oracle)
    saved, report = families.restore(given(state), hints(meta))
    assert not report.left
    saved = saved._replace(card=card.of_checkpoint(saved))
    write.write(saved, tmp_path / "back.npz", "official")
    back = files.read(tmp_path / "back.npz").state
    # timm has one index for all blocks; the official code has one in each.
    mine = {k: v for k, v in state.items() if k != "relative_position_index"}
    assert mine.keys() <= back.keys()
    for name, x in mine.items():
        if name.endswith(beit_names.INDEX):  # recorded in half of PyTorch's 64 bits
            x = x.astype(np.int64)
        assert (back[name].dtype, back[name].shape) == (x.dtype, x.shape), name
        assert back[name].tobytes() == np.ascontiguousarray(x).tobytes(), name
    more = back.keys() - mine.keys()
    assert all(name.endswith(beit_names.INDEX) for name in more)


@pytest.mark.parametrize("oracle", ORACLES + HF_ORACLES)
def test_a_config_made_of_shapes_builds_that_network(oracle):
    state, meta = states(oracle)
    saved, _ = families.restore(given(state), hints(meta))
    task = tasks.build(config_lib.from_dict(saved.config))
    spec = {
        name: np.zeros((1, *form.shape), form.dtype)
        for name, form in task.train_spec.items()
    }
    want = jax.eval_shape(lambda b: nn.unbox(task.init(jax.random.key(0), b)), spec)
    names.check_fit(saved.params, want["params"], oracle)


def assert_same_network(back, saved, lost=()):
    """Weights and settings, without those that the format loses."""
    assert_same(back.params, saved.params)
    assert back.config["task"] == saved.config["task"]
    have, want = (json.loads(json.dumps(x.config["model"])) for x in (back, saved))
    # Of LayerScale the file has what was learned, not from where.
    want["layer_scale"] = want["layer_scale"] and 0.1
    assert have.keys() == want.keys()
    assert {k: have[k] for k in have if k not in lost} == {
        k: want[k] for k in want if k not in lost
    }


@pytest.mark.parametrize("name", BEIT)
def test_every_network_comes_back_from_official_names(name, tmp_path):
    saved, hint = network(name)
    write.write(saved, tmp_path / "file.safetensors", "official")
    back, report = families.restore(files.read(tmp_path / "file.safetensors"), hint)
    assert not report.left
    assert_same_network(back, saved, lost=["norm_eps"])


@pytest.mark.parametrize("name", [*WITH_BIASES, "cropped"])
def test_a_folder_for_transformers_tells_everything(name, tmp_path):
    if name == "cropped":
        saved = checkpoint(CROPPED, pixels="half", **CROPPING)
    else:
        saved = checkpoint(CASES[name])
    write.write(saved, tmp_path / "folder", "hf")
    back, report = families.restore(files.read(tmp_path / "folder"))
    assert not report.left
    assert_same_network(back, saved)
    assert card.of_checkpoint(back) == saved.card


def test_transformers_can_make_a_classifier_of_its_folder(tmp_path):
    write.write(checkpoint(CROPPED, **CROPPING), tmp_path / "folder", "hf")
    texts = files.read(tmp_path / "folder").texts
    names = [f"thing {i}" for i in range(7)]
    assert (
        texts["config.json"].items()
        >= {
            "architectures": ["BeitForImageClassification"],
            **{"model_type": "beit", "hidden_act": "gelu", "layer_norm_eps": 1e-6},
            **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
            **{"intermediate_size": 128, "patch_size": 8, "image_size": 56},
            "use_mask_token": False,
            "use_mean_pooling": False,
            "use_absolute_position_embeddings": True,
            "use_relative_position_bias": False,
            "use_shared_relative_position_bias": False,
            "layer_scale_init_value": 0.0,
            "id2label": {str(i): name for i, name in enumerate(names)},
            "label2id": {name: i for i, name in enumerate(names)},
        }.items()
    )
    assert (
        texts["preprocessor_config.json"].items()
        >= {
            "image_processor_type": "CLIPImageProcessor",
            **{"do_resize": True, "size": {"shortest_edge": 64}, "resample": 2},
            **{"do_center_crop": True, "crop_size": {"height": 56, "width": 56}},
            **{"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True},
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
        }.items()
    )


def test_transformers_can_go_on_with_pretraining_from_its_folder(tmp_path):
    saved = checkpoint(CASES["mim_shared"], pixels="half")
    write.write(saved, tmp_path / "folder", "hf")
    texts = files.read(tmp_path / "folder").texts
    assert (
        texts["config.json"].items()
        >= {
            "architectures": ["BeitForMaskedImageModeling"],
            **{"vocab_size": 17, "image_size": 32, "use_mask_token": True},
            "use_mean_pooling": True,  # or there would be two norms
            "use_absolute_position_embeddings": False,
            "use_relative_position_bias": False,
            "use_shared_relative_position_bias": True,
            "layer_scale_init_value": 0.1,
        }.items()
    )
    assert "id2label" not in texts["config.json"]
    assert (
        texts["preprocessor_config.json"].items()
        >= {
            **{"do_center_crop": True, "size": {"shortest_edge": 32}},
            **{"resample": 3, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
        }.items()
    )


@pytest.mark.parametrize("name", ["mean_per_block", "shared"])
def test_by_way_of_timm_every_block_has_a_table(name, tmp_path):
    saved, hint = network(name)
    report = write.write(saved, tmp_path / "timm.safetensors", "timm")
    back, _ = families.restore(files.read(tmp_path / "timm.safetensors"), hint)
    task = tasks.build(config_lib.from_dict(back.config))
    assert_same(back.params, task.adapt(saved.params, saved.config["model"]))
    copied = any("copy of the shared table" in note for note in report.notes)
    assert copied == (name == "shared")


def test_what_timm_has_no_place_for_must_be_named(tmp_path):
    saved, _ = network("mim_shared")
    path = tmp_path / "timm.safetensors"
    with pytest.raises(
        ValueError, match=r"lost: params/encoder/mask_token.*params/lm_head/\*'"
    ):
        write.write(saved, path, "timm")
    assert not path.exists()
    allow = ("params/lm_head/*", "params/encoder/mask_token")
    report = write.write(saved, path, "timm", allow)
    assert len(report.left) == 3
    assert "mask_token" not in files.read(path).state


def test_both_versions_of_transformers_names_are_read():
    state, meta = states("hf_cls")  # as in memory of version 5
    saved, _ = families.restore(given(state), hints(meta))
    rows = beit.foreign(
        saved._replace(card=card.of_checkpoint(saved)), "hf", pathlib.Path("x")
    ).rows
    four, _ = rules.write(rows, flatten({"params": saved.params}))
    assert any("encoder.layer.0.attention.attention.query" in name for name in four)
    assert not four.keys() & {name for name in state if "layers.0" in name}
    again, _ = families.restore(given(four), hints(meta))
    assert_same(again.params, saved.params)
    bare = {k.removeprefix("beit."): x for k, x in four.items() if "classif" not in k}
    alone, _ = families.restore(given(bare), hints(meta))
    assert_same(alone.params["encoder"], saved.params["encoder"])
    assert alone.config["task"]["name"] == "pretrain"


def test_a_bias_of_keys_is_ignored():
    state, meta = states("finetune_v1")
    state["blocks.0.attn.k_bias"] = np.ones(4, np.float32)
    _, report = families.restore(given(state), hints(meta))
    assert "blocks.0.attn.k_bias" in report.ignored


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("blocks.1.attn.q_bias"), "lacks blocks.1.attn.q_bias"),
        (lambda s: s.pop("fc_norm.bias"), "lacks fc_norm.bias"),
        (lambda s: s.pop("blocks.0.mlp.fc1.weight"), "lacks blocks.0.mlp.fc1.weight"),
        (lambda s: s.update(extra=s["cls_token"]), "would be lost: extra"),
        (
            lambda s: s.update({"blocks.1.gamma_1": s["head.bias"]}),
            "blocks.1.gamma_1 has another shape",
        ),
        (lambda s: [s.pop(k) for k in list(s)], "no network known here"),
    ],
)
def test_a_state_that_is_no_beit_is_refused(change, message):
    state, meta = states("finetune_v1")
    change(state)
    with pytest.raises(ValueError, match=message):
        families.restore(given(state), hints(meta))


def test_what_is_allowed_stays_behind():
    state, meta = states("mim_v1")
    state["decoder.0.norm1.weight"] = np.ones(4, np.float32)
    with pytest.raises(ValueError, match=r"--allow 'decoder\.\*'"):
        families.restore(given(state), hints(meta))
    _, report = families.restore(given(state), hints(meta), ["decoder.*"])
    assert report.left == ["decoder.0.norm1.weight"]


def test_positions_are_resized_for_other_images():
    state, meta = states("finetune_v1")
    saved, _ = families.restore(given(state), Hints((96, 96), 4))
    opened = Opened(saved, image_size=(96, 96))
    saved = opened.adapted()
    assert saved.config["model"]["image_size"] == 96
    table = saved.params["encoder"]["blocks"]["attn"]["rel_pos_bias"]["table"]
    assert table.shape == (2, 11 * 11 + 3, 4)
    assert opened.notes == ("positions of 64x64 px resized to those of 96x96 px",)
    # The rows of [CLS] are no offsets.
    np.testing.assert_array_equal(
        table[0, -3:], state["blocks.0.attn.relative_position_bias_table"][-3:]
    )


def test_a_rectangle_has_to_be_named():
    state, _ = states("timm_beit")
    with pytest.raises(ValueError, match="--image_size HEIGHT,WIDTH"):
        families.restore(given(state), Hints())
    saved, _ = families.restore(given(state), Hints((48, 80)))
    assert saved.config["model"]["image_size"] == (48, 80)


@pytest.mark.parametrize(
    "name, pixels",
    [
        ("beit_base_patch16_224_pt22k_ft22k.pth", "half"),
        ("beit_base_patch16_224_pt1k_ft1k.pth", "imagenet"),
        ("beitv2_base_patch16_224_pt1k_ft21k.pth", "imagenet"),
        ("checkpoint-99.pth", "half"),
    ],
)
def test_the_pixel_space_is_told_by_the_files_name(name, pixels):
    state, meta = states("finetune_v1")
    saved, report = families.restore(given(state, path=name), hints(meta))
    assert saved.config["model"]["pixels"] == pixels
    assert any(repr(pixels) in note for note in report.notes)


def test_a_processor_tells_what_images_go_through():
    state, _ = states("hf_cls")
    processor = {
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 2,
        "do_center_crop": True,
        "size": 80,
        "crop_size": {"height": 64, "width": 64},
    }
    config = {
        "model_type": "beit",
        "num_attention_heads": 4,
        "layer_norm_eps": 1e-12,
        "image_size": 64,
        "id2label": {str(i): f"class {i}" for i in range(7)},
    }
    texts = {"config.json": config, "preprocessor_config.json": processor}
    saved, _ = families.restore(given(state, texts))
    made = card.of_checkpoint(saved)
    assert made["mean"] == [0.485, 0.456, 0.406]
    assert made["interpolation"] == "bilinear"
    assert made["frame"] == {"name": "whole", "crop_pct": 0.8}
    assert made["norm_eps"] == 1e-12
    assert made["class_names"][6] == "class 6"
    texts["config.json"] = config | {"model_type": "vit"}
    with pytest.raises(ValueError, match="model_type='vit', no BEiT"):
        families.restore(given(state, texts))


def test_a_file_of_ours_holds_everything(tmp_path):
    saved, _ = network("mim_shared")
    write.write(saved, tmp_path / "own.safetensors", "safetensors")
    back, _ = families.restore(files.read(tmp_path / "own.safetensors"))
    assert_same(back.params, saved.params)
    assert (back.config, back.card) == (saved.config, saved.card)
    with pytest.raises(ValueError, match="exists; name a new one"):
        write.write(saved, tmp_path / "own.safetensors", "safetensors")
