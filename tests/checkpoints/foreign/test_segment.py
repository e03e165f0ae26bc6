"""Networks of segmentation in mmseg's names and in transformers', both ways."""

import functools
import json
import pathlib

import flax.linen as nn
import jax
import numpy as np
import pytest

from beit_jax import config as config_lib
from beit_jax import tasks
from beit_jax.checkpoints import write
from beit_jax.checkpoints.foreign import families, files
from beit_jax.checkpoints.foreign.rules import Hints
from beit_jax.checkpoints.names import flatten
from beit_jax.checkpoints.steps import Restored
from beit_jax.heads import network
from beit_jax.run import card
from tests import tiny
from tests.agreement import assert_agrees
from tests.models import official
from tests.shared import shared_path

UPERNET = {"name": "upernet", "channels": 32, "auxiliary": 4}
UPERNET_ALONE = {"name": "upernet", "channels": 32, "auxiliary": 0}
PUP = {"name": "setr_pup", "channels": 4}
NAIVE = {"name": "setr_naive", "channels": 4}
MLA = {"name": "setr_mla", "channels": 8, "mla_channels": 4}
HEADS = {x["name"]: x for x in (UPERNET, PUP, NAIVE, MLA)} | {"alone": UPERNET_ALONE}


def given(state, texts=None, path="beit.pth"):
    return files.Found(pathlib.Path(path), state, texts or {})


def checkpoint(head, **changes) -> Restored:
    """A random network of four blocks as a checkpoint of ours."""
    sections = {"task__head": head, "model__depth": 4, "task__taps": (), **changes}
    config = tiny.config("segment", **sections)
    task, rng = tasks.build(config), np.random.default_rng(0)
    image = {"image": np.zeros((1, 32, 32, 3), np.uint8)}
    shapes = jax.eval_shape(lambda: nn.unbox(task.init(jax.random.key(0), image)))
    made = jax.tree.map(
        lambda x: rng.standard_normal(x.shape).astype(np.float32), shapes
    )
    return Restored(
        path=pathlib.Path("random"),
        step=0,
        params=made["params"],
        model_state=made["model_state"],
        config=json.loads(config.to_json()),
        position={"step": 0},
        card=card.of(config, task, ["road", "sky", "tree", "car"]),
    )


def assert_same(one, two):
    one, two = flatten(one), flatten(two)
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


@pytest.mark.parametrize("name", HEADS)
def test_a_network_comes_back_from_the_names_of_mmseg(name, tmp_path):
    saved = checkpoint(HEADS[name])
    write.write(saved, tmp_path / "file.safetensors", "official")
    found = files.read(tmp_path / "file.safetensors")
    back, report = families.restore(found, Hints(heads=4, pixels="half"))
    assert not report.left
    assert_same(back.params, saved.params)
    assert_same(back.model_state, saved.model_state)
    head = back.config["task"]["head"]
    assert head["name"] == HEADS[name]["name"]
    task = tasks.build(config_lib.from_dict(back.config))
    assert (
        task.network.output
        == tasks.build(config_lib.from_dict(saved.config)).network.output
    )


@pytest.mark.parametrize("head", [UPERNET, UPERNET_ALONE])
@pytest.mark.parametrize(
    ("convention", "taps"), [("official", (0, 1, 2, 3)), ("hf", (2, 3, 4, 5))]
)
def test_a_network_comes_back_from_a_folder_for_transformers(
    head, convention, taps, tmp_path
):
    told = {"task__taps": taps, "task__tap_convention": convention, "model__depth": 5}
    saved = checkpoint(head, **told)
    write.write(saved, tmp_path / "folder", "hf")
    back, report = families.restore(files.read(tmp_path / "folder"))
    assert not report.left
    assert_same(back.params, saved.params)
    assert_same(back.model_state, saved.model_state)
    task = back.config["task"]
    assert (tuple(task["taps"]), task["tap_convention"]) == (taps, convention)
    assert card.of_checkpoint(back)["class_names"] == ["road", "sky", "tree", "car"]


def test_what_transformers_saved_gives_its_logits(tmp_path):
    """In the names of both of its versions, and after them through ours and back."""
    arrays, meta = official.load("hf_seg")
    path = shared_path("oracles/hf_seg/names.json")
    older = json.loads(path.read_text())["v5_to_v4"]
    config = meta["config"] | {"model_type": "beit"}
    texts = {"config.json": config}
    state = official.group(arrays, "param")
    for style in (state, {older[name]: x for name, x in state.items()}):
        saved, report = families.restore(given(style, texts, "hf"))
        assert not report.left
        saved = saved._replace(card=card.of_checkpoint(saved))
        task = tasks.build(config_lib.from_dict(saved.config))
        variables = {"params": saved.params, **saved.model_state}
        images = arrays["in/pixel_values"].transpose(0, 2, 3, 1)
        apply = functools.partial(network.apply, task.network)
        with jax.default_matmul_precision("highest"):
            maps, _ = jax.jit(apply)(variables, images)
        got = np.asarray(maps.logits).transpose(0, 3, 1, 2)
        assert_agrees(
            "oracle hf_seg", "logits of its files", got, arrays["out/eval_logits"], 2e-5
        )
    write.write(saved, tmp_path / "folder", "hf")
    back = files.read(tmp_path / "folder").state
    for name, x in style.items():
        assert back[name].tobytes() == np.ascontiguousarray(x).tobytes(), name
    more = back.keys() - style.keys()
    assert all(name.endswith("num_batches_tracked") for name in more)


@pytest.mark.parametrize(
    ("to", "changes", "told"),
    [
        ("timm", {}, "timm has no names for the head 'upernet'"),
        ("hf", {"task__head": PUP}, "hf has no names for the head 'setr_pup'"),
        ("official", {"task__head": {"name": "linear_maps"}}, "safetensors or orbax"),
        ("hf", {"task__head": UPERNET | {"channels": 16}}, "the encoder, 32, not 16"),
        ("hf", {"task__taps": (0, 0, 1, 1)}, r"not \(0, 0, 1, 1\)"),
    ],
)
def test_what_a_format_cannot_be_is_named(to, changes, told, tmp_path):
    changes = {"task__head": UPERNET, **changes}
    saved = checkpoint(changes.pop("task__head"), **changes)
    target = tmp_path / {"official": "x.npz"}.get(to, "folder")
    with pytest.raises(ValueError, match=told):
        write.write(saved, target, to)


def test_the_processor_tells_how_labels_were_counted(tmp_path):
    source = {"name": "ade20k", "reduce_zero_label": True}
    saved = checkpoint(UPERNET)
    saved.config["data"]["source"] = source
    write.write(saved, tmp_path / "folder", "hf")
    found = files.read(tmp_path / "folder")
    assert found.texts["preprocessor_config.json"]["do_reduce_labels"]
    _, report = families.restore(found)
    assert any("reduce_zero_label=True" in note for note in report.notes)
