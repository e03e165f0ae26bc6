"""The published weights' published logits, for whoever has the weights.

BEIT_JAX_WEIGHTS names a folder with COCO's image 000000039769.png (or .jpg) and any of
the checkpoints of tests/golden/published.json: NAME.pth from the official code, or a
folder of the same name from the Hugging Face hub, the owner's left out. The numbers are
from transformers (tests/models/beit and convert_beit_unilm_to_pytorch.py; Apache-2.0).
"""

import json
import os
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

import beit_jax

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "published.json"
PUBLISHED = json.loads(GOLDEN.read_text())


def find(*names: str) -> pathlib.Path:
    folder = os.environ.get("BEIT_JAX_WEIGHTS")
    if not folder:
        pytest.skip("BEIT_JAX_WEIGHTS names no folder with published weights")
    found = [path for name in names if (path := pathlib.Path(folder, name)).exists()]
    if not found:
        pytest.skip(f"no {' or '.join(names)} in BEIT_JAX_WEIGHTS={folder}")
    return found[0]


def cats(size: int) -> np.ndarray:
    """As transformers' tests prepare them: squashed, bilinear, within -1 .. 1."""
    with Image.open(find("000000039769.png", "000000039769.jpg")) as image:
        small = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return (np.asarray(small, np.float32)[None] / 255 - 0.5) / 0.5


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_give_their_published_logits(name):
    wanted, short = PUBLISHED[name], name.split("/")[-1]
    module, variables, _, card = beit_jax.load(find(short, f"{short}.pth"))
    image = cats(card["image_size"][0])
    apply = jax.jit(module.apply)
    with jax.default_matmul_precision("highest"):
        if "tokens" in wanted:
            logits = apply(variables, image, np.ones((1, 196), bool))
            assert logits.shape == (1, 196, wanted["tokens"])
            first = wanted["first logits of first tokens"]
            np.testing.assert_allclose(logits[0, :3, :3], first, atol=1e-2)
            return
        logits = apply(variables, image)
    assert logits.shape == (1, wanted["classes"])
    np.testing.assert_allclose(logits[0, :3], wanted["first logits"], atol=1e-3)
    assert logits[0].argmax() == wanted["argmax"]
