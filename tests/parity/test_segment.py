"""Live against transformers' BeitForSemanticSegmentation, through files, both ways."""

import functools

import jax
import numpy as np
import pytest

from beit_jax import config as config_lib
from beit_jax import tasks
from beit_jax.checkpoints import read, write
from beit_jax.heads import network
from beit_jax.run import card
from tests.agreement import assert_agrees

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

CONFIG = {
    "hidden_size": 16,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "layer_norm_eps": 1e-6,
    "image_size": 40,
    "patch_size": 4,
    "use_relative_position_bias": True,
    "out_indices": [2, 3, 4, 5],
    "num_labels": 5,
    "auxiliary_channels": 12,
    "drop_path_rate": 0.0,
}


def theirs():
    """A network whose every number is random, running statistics included."""
    torch.manual_seed(0)
    config = transformers.BeitConfig(**CONFIG)
    model = transformers.BeitForSemanticSegmentation(config).eval()
    with torch.no_grad():
        for name, x in model.state_dict().items():
            if x.is_floating_point():
                x.normal_(std=0.3)
            if name.endswith(("running_var", "lambda_1", "lambda_2")):
                x.abs_().add_(0.5)
    return model


def logits(path, images):
    """Ours, of a checkpoint as it is read."""
    saved, report = read.read(path)
    assert not report.left
    task = tasks.build(config_lib.from_dict(saved.config))
    variables = {"params": saved.params, **saved.model_state}
    apply = functools.partial(network.apply, task.network)
    with jax.default_matmul_precision("highest"):
        maps, _ = jax.jit(apply)(variables, images)
    return saved, np.asarray(maps.logits).transpose(0, 3, 1, 2)


def test_networks_agree_through_its_files_and_ours(tmp_path):
    model, label = theirs(), f"transformers {transformers.__version__}"
    images = np.random.default_rng(1).standard_normal((2, 40, 40, 3), np.float32)
    given = torch.tensor(images.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        want = model(given).logits.numpy()
    model.save_pretrained(tmp_path / "theirs")
    saved, got = logits(tmp_path / "theirs", images)
    assert_agrees(label, "segmentation: logits, read", got, want, atol=5e-5)

    saved = saved._replace(card=card.of_checkpoint(saved))
    write.write(saved, tmp_path / "ours", "hf")
    load = transformers.BeitForSemanticSegmentation.from_pretrained
    back, told = load(tmp_path / "ours", output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"], told
    with torch.no_grad():
        got = back.eval()(given).logits.numpy()
    assert_agrees(label, "segmentation: logits, written", got, want, atol=1e-6)
    assert back.config.num_labels == 5
