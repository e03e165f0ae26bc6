"""Live against transformers: MAE, CLIP and the plain ViT of DINO, by their files."""

import jax
import numpy as np
import pytest

from beit_jax.checkpoints import read, write
from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.run import card
from beit_jax.run.opened import Opened
from beit_jax.targets.teachers import EncoderTeacher
from tests.agreement import assert_agrees

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 32,
    "patch_size": 8,
}
DECODER = {
    "decoder_hidden_size": 24,
    "decoder_num_hidden_layers": 3,
    "decoder_num_attention_heads": 3,
    "decoder_intermediate_size": 96,
}


def peer(kind: str, settings: dict):
    """A network of transformers whose parameters are all random, but fixed tables."""
    model = getattr(transformers, kind)(
        getattr(transformers, settings.pop("config"))(**settings)
    )
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=draw)
    return model.eval()


def images():
    return np.random.default_rng(0).standard_normal((2, 32, 32, 3), np.float32)


def nchw(image):
    return torch.tensor(np.moveaxis(image, -1, 1).copy())


def mae():
    return peer(
        "ViTMAEForPreTraining",
        SIZES | DECODER | {"config": "ViTMAEConfig", "mask_ratio": 0.75},
    )


def predictions(folder):
    """What our network of a folder makes of `images`, with MAE's noise."""
    module, variables = Opened(read.restore(folder)).network()
    seen = np.argsort(noise(), axis=1)[:, :4]
    with jax.default_matmul_precision("highest"):
        return jax.jit(module.apply)(variables, images(), visible=seen)


def noise():
    return np.random.default_rng(1).random((2, 16), np.float32)


def theirs(model):
    with torch.no_grad():
        return model(nchw(images()), noise=torch.tensor(noise())).logits.numpy()


def test_mae_agrees_there_and_back(tmp_path):
    model = mae()
    model.save_pretrained(tmp_path / "theirs")
    peers = f"transformers {transformers.__version__}"
    got, want = predictions(tmp_path / "theirs"), theirs(model)
    assert_agrees(peers, "MAE: predictions", got, want, atol=2e-5)
    saved, _ = read.read(tmp_path / "theirs")
    saved = saved._replace(card=card.of_checkpoint(saved))
    write.write(saved, tmp_path / "back", "hf")
    again, told = transformers.ViTMAEForPreTraining.from_pretrained(
        tmp_path / "back", output_loading_info=True
    )
    assert not told["missing_keys"] and not told["unexpected_keys"]
    got = theirs(again.eval())
    assert_agrees(peers, "MAE: predictions, written back", got, want, atol=2e-5)


def test_a_dino_of_transformers_agrees(tmp_path):
    model = peer("ViTModel", SIZES | {"config": "ViTConfig"})
    model.save_pretrained(tmp_path)
    saved, _ = read.read(tmp_path)
    alone = Opened(saved).encoder
    with jax.default_matmul_precision("highest"):
        made = jax.jit(alone.module.apply)({"params": alone.params}, images())
    with torch.no_grad():
        want = model(nchw(images())).last_hidden_state.numpy()
    peers = f"transformers {transformers.__version__}"
    assert_agrees(peers, "DINO: tokens", made.tokens, want, atol=2e-5)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_a_clip_of_transformers_agrees(activation, tmp_path):
    settings = SIZES | {"hidden_act": activation, "projection_dim": 20}
    model = peer(
        "CLIPVisionModelWithProjection", settings | {"config": "CLIPVisionConfig"}
    )
    model.save_pretrained(tmp_path)
    teacher = EncoderTeacher((4, 4), 8, str(tmp_path))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    with jax.default_matmul_precision("highest"):
        got = jax.jit(teacher)(teacher.frozen.load(), pixels)
    seen = nchw(np.asarray(PIXEL_SPACES["clip"].to_float(pixels)))
    with torch.no_grad():
        tower = model.vision_model
        last = tower.post_layernorm(tower(seen).last_hidden_state)
        want = model.visual_projection(last)[:, 1:].numpy()
    peers = f"transformers {transformers.__version__}"
    assert_agrees(peers, f"CLIP: patches, {activation}", got, want, atol=2e-5)
