"""A teacher's features: CLIP's are the official ones, and so are the losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.checkpoints import read
from beit_jax.checkpoints.foreign import clip, files
from beit_jax.checkpoints.foreign.rules import Hints
from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.targets.features import LOSSES, Features
from tests.agreement import assert_agrees
from tests.models import official

GRID, PATCH, HEADS, PEER = (4, 4), 16, 4, "oracle clip_target"


def hf(arrays) -> dict:
    return official.group(arrays, "param/teacher")


def openai(state: dict) -> dict:
    """The same weights by OpenAI's names, whose arrays are joined."""
    made = {"visual.proj": state["visual_projection.weight"].T}
    for ours, (theirs, name, *_) in clip.OTHERS.items():
        if ours != "projection":
            made[theirs] = state[f"vision_model.{name}"]
    for i in range(2):
        layer = f"vision_model.encoder.layers.{i}"
        block = f"visual.transformer.resblocks.{i}"
        for leaf in ("weight", "bias"):
            parts = [state[f"{layer}.self_attn.{k}_proj.{leaf}"] for k in "qkv"]
            made[f"{block}.attn.in_proj_{leaf}"] = np.concatenate(parts)
            for old, new in (
                ("self_attn.out_proj", "attn.out_proj"),
                ("layer_norm1", "ln_1"),
                ("layer_norm2", "ln_2"),
                ("mlp.fc1", "mlp.c_fc"),
                ("mlp.fc2", "mlp.c_proj"),
            ):
                made[f"{block}.{new}.{leaf}"] = state[f"{layer}.{old}.{leaf}"]
    texts = {"logit_scale": np.float32(4.6), "positional_embedding": np.ones((7, 3))}
    return made | texts


NAMES = {"transformers": dict, "openai": openai}


@pytest.fixture(params=NAMES)
def tower(request, tmp_path):
    """(file of CLIP's tower, arrays, what is read of it)."""
    arrays, meta = official.load("clip_target")
    state = NAMES[request.param](hf(arrays))
    files.write(tmp_path / "clip.safetensors", state)
    saved, _ = read.read(tmp_path / "clip.safetensors", Hints(heads=meta["heads"]))
    return tmp_path / "clip.safetensors", arrays, saved


def in_bytes(images):
    mean, std = (np.array(x) for x in PIXEL_SPACES["clip"])
    return ((np.moveaxis(images, 1, -1) * std + mean) * 255).astype(np.float32)


def seen_by(saved, arrays, **settings):
    """What a target wants, whose network `saved` is."""
    target = Features(
        GRID, PATCH, teacher("untrained", **settings, untrained=untrained(saved))
    )
    frozen = jax.tree.map(jnp.asarray, saved.params["encoder"])
    with jax.default_matmul_precision("highest"):
        return jax.jit(target)(frozen, in_bytes(arrays["in/teacher_images"]))


def teacher(checkpoint, **settings) -> dict:
    return {"name": "encoder", "checkpoint": str(checkpoint), **settings}


def untrained(saved) -> dict:
    model = dict(saved.config["model"])
    del model["image_size"]
    return model


def test_features_of_clip_are_those_of_its_own_code(tower):
    _, arrays, saved = tower
    assert saved.config["model"]["activation"] == "quick_gelu"
    assert saved.config["model"]["pixels"] == "clip"
    wanted = arrays["out/teacher_projected_all"][:, 1:]
    assert_agrees(PEER, "projected patches", seen_by(saved, arrays), wanted, atol=1e-5)
    wanted = arrays["out/teacher_after_block_0"][:, 1:]
    got = seen_by(saved, arrays, block=0)
    assert_agrees(PEER, "patches after a block", got, wanted, atol=1e-5)
    centred = seen_by(saved, arrays, normalize=True)
    np.testing.assert_allclose(centred.mean(-1), 0, atol=1e-5)


def test_a_tower_from_a_file_is_a_frozen_network(tmp_path):
    arrays, _ = official.load("clip_target")
    wide = {k: np.repeat(x, 1, 0) for k, x in hf(arrays).items()}
    files.write(tmp_path / "clip.safetensors", wide)
    target = Features(GRID, PATCH, teacher(tmp_path / "clip.safetensors"))
    assert target.image_size == (32, 32) and target.outputs == 20
    frozen = target.frozen.load()
    image = np.zeros((2, 32, 32, 3), np.uint8)
    assert target(frozen, image).shape == (2, 16, 20)


@pytest.mark.parametrize(
    "name, loss, beta, normalize",
    [
        ("smooth_l1_masked_beta1", "smooth_l1", 1.0, False),
        ("smooth_l1_masked_beta2", "smooth_l1", 2.0, False),
        ("smooth_l1_masked_beta2_ln_target", "smooth_l1", 2.0, True),
        ("cosine_masked", "cosine", 1.0, False),
        ("cosine_all", "cosine", 1.0, False),
    ],
)
def test_losses_are_those_of_the_official_codes(name, loss, beta, normalize):
    arrays, _ = official.load("clip_target")
    wanted = arrays["out/teacher_projected_all"][:, 1:]
    if normalize:
        wanted = wanted - wanted.mean(-1, keepdims=True)
        wanted /= np.sqrt(wanted.var(-1, keepdims=True) + 1e-5)
    each = LOSSES[loss](arrays["out/student_pred"], wanted, beta)
    mask = True if name.endswith("all") else arrays["in/mask"]
    got = jnp.mean(each, where=mask)
    assert_agrees(PEER, name, got, arrays[f"out/loss_{name}"], atol=2e-6)
    if loss == "cosine":  # EVA's and MILAN's
        two = {"masked": "two_minus_two_cos_masked_eva", "all": "mse_l2norm_all_milan"}
        theirs = arrays[f"out/loss_{two[name.removeprefix('cosine_')]}"]
        assert_agrees(PEER, f"twice {name}", 2 * got, theirs, atol=4e-6)


def test_a_loss_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="loss='l2' is none of cosine, smooth_l1, mse"):
        Features(GRID, PATCH, teacher("untrained"), loss="l2")
