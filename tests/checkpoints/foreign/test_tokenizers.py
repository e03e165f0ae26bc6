"""Every family of tokenizers: what is written is read again, settings and all."""

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
from beit_jax.checkpoints.foreign import discrete_vae, families, files, rules
from beit_jax.checkpoints.foreign.rules import Hints
from beit_jax.checkpoints.names import flatten
from beit_jax.checkpoints.steps import Restored
from tests import tiny
from tests.models import official
from tests.tasks import runs

DVAE = {"name": "dvae", "vocab": 5, "n_hid": 4, "pixels": "dalle"}
CUSTOMIZED = {"name": "discrete_vae", "vocab": 5, "code_dim": 3, "hidden": 4}
VQVAE = {"name": "vqvae", "vocab": 5, "code_dim": 3, "network": "convolutions"}
VQVAE |= {"width": 8, "res_hidden": 2, "pixels": "centred"}
# Theirs has no decoder of pixels, and 64 features a head.
VQKD = {"name": "vqkd"} | tiny.VQKD | {"heads": 1, "decoder_heads": 1}
VQKD |= {"pixel_blocks": 0, "depth": 2, "decoder_dim": 8, "patch_size": 8}
MODELS = {
    "dvae": DVAE | {"n_init": 6, "blocks_per_group": 2, "patch_size": 8},
    "dvae, a decoder of one width": DVAE
    | {"n_init": 8, "blocks_per_group": 1, "patch_size": 2},
    "discrete_vae": CUSTOMIZED | {"patch_size": 8, "res_blocks": 1},
    "discrete_vae, deep": CUSTOMIZED | {"patch_size": 2, "res_blocks": 2},
    "discrete_vae, plain": CUSTOMIZED | {"patch_size": 4, "res_blocks": 0},
    "vqvae": VQVAE | {"res_blocks": 2, "restart_below": 0.0},
    "vqkd": VQKD,
    "vqvae, plain": VQVAE | {"res_blocks": 0, "res_hidden": 0},
}

OBJECTIVES = {
    "discrete_vae": {"likelihood": "mse"},
    "vqkd": {"teacher": tiny.TEACHER},
}


@functools.cache
def checkpoint(name: str) -> Restored:
    """One of MODELS with random weights."""
    model = MODELS[name]
    objective = OBJECTIVES.get(model["name"], {})
    config = config_lib.new(
        epochs=0.0,
        task={"name": "tokenizer", "objective": objective},
        model=model | {"image_size": 16},
    )
    _, params, ctx, _ = runs.start(config)
    params, model_state = jax.tree.map(np.asarray, (params, dict(ctx.model_state)))
    plain = json.loads(config.to_json())
    path = pathlib.Path("random")
    return Restored(path, params, model_state, plain, {"step": 0}, {}, 0)


def flat(saved: Restored) -> dict[str, np.ndarray]:
    return flatten({"params": saved.params, **saved.model_state})


def state_of(saved: Restored, dialect: str = "official") -> dict[str, np.ndarray]:
    """What is written, by their names."""
    made = families.FAMILIES[saved.config["model"]["name"]].foreign(
        saved, dialect, pathlib.Path("x")
    )
    return rules.write(made.rows, flat(saved), made.ignorable)[0] | made.extra


def read(state, hints=rules.NO_HINTS, path="tokenizer.pth"):
    return families.restore(files.Found(pathlib.Path(path), state, {}), hints)


def assert_equal(have, want):
    assert have.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(have[name], value, err_msg=name, strict=True)


@pytest.mark.parametrize("name", MODELS)
def test_a_tokenizer_survives_the_way_there_and_back(name, tmp_path):
    saved = checkpoint(name)
    write.write(saved, tmp_path / "theirs.npz", "official")
    again, report = families.restore(files.read(tmp_path / "theirs.npz"))
    known = {ours for ours in flat(saved) if "quantizer/" not in ours}
    known |= flat(saved).keys() & {"codebook/quantizer/embedding"}
    assert_equal(*({k: flat(x)[k] for k in known} for x in (again, saved)))
    assert_equal(state_of(again), files.read(tmp_path / "theirs.npz").state)
    assert again.config["model"].items() >= MODELS[name].items()
    assert "image_size=" in report.notes[-1]


@pytest.mark.parametrize("name", MODELS)
def test_what_is_read_fits_the_task_that_its_config_tells_of(name):
    again, _ = read(state_of(checkpoint(name)))
    config = config_lib.from_dict(again.config)
    task = tasks.build(config)
    init = jax.eval_shape(task.init, jax.random.key(0), runs.batch(task, 1))
    made = nn.unbox(init)
    shapes = flatten({"params": made["params"], **made["model_state"]})
    assert {k: (v.shape, v.dtype) for k, v in flat(again).items()} == {
        k: (v.shape, v.dtype) for k, v in shapes.items()
    }


def test_the_user_may_say_what_no_file_tells():
    state = state_of(checkpoint("dvae"))
    again, report = read(state, Hints(image_size=(64, 64), pixels="half"))
    assert again.config["model"]["image_size"] == 64
    assert again.config["model"]["pixels"] == "half"
    assert not report.notes
    for size in (60, (64, 32)):
        with pytest.raises(ValueError, match="must be one side, a multiple of 8"):
            read(state, Hints(image_size=size))


@pytest.mark.parametrize("name", ["dvae", "discrete_vae", "vqvae"])
def test_pixels_that_a_reader_would_not_expect_are_told(name):
    saved = checkpoint(name)
    model = saved.config["model"] | {"pixels": "imagenet"}
    saved = saved._replace(config=saved.config | {"model": model})
    made = families.FAMILIES[name].foreign(saved, "official", pathlib.Path("x"))
    assert "its pixels are 'imagenet', not" in made.notes[0]


@pytest.mark.parametrize(
    "name, missing, words",
    [
        ("dvae", "encoder.blocks.output.conv.w", "lacks encoder.blocks.output.conv.w"),
        ("dvae", "encoder.blocks.group_2.block_1.id_path.b", "lacks .*id_path.b"),
        ("discrete_vae", "decoder.1.net.4.bias", "lacks decoder.1.net.4.bias"),
        ("discrete_vae", "encoder.0.0.weight", "of no network known here"),
        ("vqvae", "encoder._blocks.conv_3.weight", "lacks encoder._blocks.conv_3"),
        ("vqvae", "pre_vq_conv.bias", "lacks pre_vq_conv.bias"),
        ("vqvae", "vq_vae.codebook.weight", "of no network known here"),
        ("vqkd", "decoder.pos_embed", "lacks decoder.pos_embed"),
        (
            "vqkd",
            "encoder.blocks.1.mlp.fc1.bias",
            "lacks encoder.blocks.1.mlp.fc1.bias",
        ),
        ("vqkd", "decode_task_layer.0.weight", "of no network known here"),
    ],
)
def test_half_a_state_dict_is_refused_by_name(name, missing, words):
    state = state_of(checkpoint(name))
    del state[missing]
    with pytest.raises(ValueError, match=f"tokenizer.pth.*{words}"):
        read(state)


@pytest.mark.parametrize("name", ["dvae", "discrete_vae", "vqvae"])
def test_more_than_the_network_is_refused_by_name(name):
    state = state_of(checkpoint(name)) | {"loss.lin0": np.zeros(1, np.float32)}
    with pytest.raises(ValueError, match=r"tokenizer.pth.*: loss.lin0.*'loss\.\*'"):
        read(state)


@pytest.mark.parametrize("oracle", ["dvae", "discrete_vae", "vqkd"])
def test_official_weights_survive_the_way_here_and_back(oracle):
    state = official.group(official.load(oracle)[0], "param")
    assert_equal(state_of(read(state)[0]), state)


def test_names_are_those_of_beits_code():
    names = {theirs: ours for theirs, ours, _ in discrete_vae.rows()}
    conv = names["decoder.3.net.4.bias"]
    assert conv == "params/decoder/stage_2_block_1/conv_3/bias"
    assert names["encoder.6.weight"] == "params/encoder/output/kernel"
