"""Tokenizer training: what is measured, and when it is said to go wrong."""

import jax
import numpy as np
import pytest

from beit_jax import tasks
from beit_jax.models.pixels import PIXEL_SPACES
from tests.tasks import runs


def build(**changes):
    return tasks.build(runs.config("tokenizer", **changes))


def sums(mse: float, uses) -> dict:
    """Of a batch of ten images."""
    uses = np.asarray(uses, np.float32)
    return {
        "loss": (mse * 10, 10.0),
        "mse": (mse * 10, 10.0),
        "commitment": (0.0, 10.0),
        "code_share": (uses, uses.sum()),
    }


def test_psnr_has_its_closed_form():
    task, uses = build(), np.ones(32)
    metrics = task.summarize([sums(0.01, uses)])
    np.testing.assert_allclose(metrics["psnr"], 20, rtol=1e-6)  # -10 log10(0.01)
    two = task.summarize([sums(0.005, uses), sums(0.015, uses)])
    np.testing.assert_allclose(two["psnr"], 20, rtol=1e-6)


def test_perplexity_of_equally_used_codes_is_their_number():
    uses = np.zeros(32)
    uses[4:12] = 5
    metrics = build().summarize([sums(0.1, uses)])
    np.testing.assert_allclose(metrics["perplexity"], 8, rtol=1e-6)
    assert metrics["codes_used"] == 8 / 32


def test_perplexity_counts_the_codes_of_all_batches():
    first, second = np.zeros(32), np.zeros(32)
    first[0], second[1] = 30, 10
    metrics = build().summarize([sums(0.1, first), sums(0.1, second)])
    entropy = -0.75 * np.log(0.75) - 0.25 * np.log(0.25)
    np.testing.assert_allclose(metrics["perplexity"], np.exp(entropy), rtol=1e-6)


def test_a_collapsed_codebook_is_told():
    task = build()
    (sentence,) = task.warnings({"codes_used": 0.05})
    assert sentence.startswith("codebook collapse: 5.0% of 32 codes are in use")
    assert task.warnings({"codes_used": 0.5}) == []


def test_the_sums_are_those_of_the_reconstruction():
    task, params, ctx, batch = runs.start(runs.config("tokenizer"))
    image = np.asarray(PIXEL_SPACES["half"].to_float(batch["image"]))
    output = jax.jit(task.model.apply)({"params": params, **ctx.model_state}, image)
    metrics = task.summarize([jax.jit(task.eval_step)(params, batch, ctx)])
    error = np.square((output.reconstruction - image) / 2).mean()  # in [0, 1]
    np.testing.assert_allclose(metrics["mse"], error, rtol=1e-5)
    commitment = output.quantized.loss.mean()
    np.testing.assert_allclose(metrics["commitment"], commitment, rtol=1e-5)
    wanted = 4 * metrics["mse"] + metrics["commitment"]  # the loss is in [-1, 1]
    np.testing.assert_allclose(metrics["loss"], wanted, rtol=1e-5)
    assert metrics["codes_used"] == len(np.unique(output.quantized.ids)) / 32


def test_a_step_starts_the_codebook_and_keeps_it():
    config = runs.config("tokenizer")
    task, params, ctx, batch = runs.start(config)
    now, update = runs.updating(task, config, params, ctx)
    after, _ = update(now, ctx.frozen, batch)
    before = ctx.model_state["codebook"]["quantizer"]
    codebook = after.model_state["codebook"]["quantizer"]
    assert codebook["initted"] and not before["initted"]
    assert np.abs(codebook["embedding"] - before["embedding"]).max() > 0.01


def test_the_picture_is_the_image_beside_its_reconstruction():
    task, params, ctx, batch = runs.start(runs.config("tokenizer"))
    picture = jax.jit(task.pictures)(params, batch, ctx)["reconstruction"]
    assert picture.shape == (4, 32, 64, 3)
    np.testing.assert_array_equal(picture[:, :, :32], batch["image"])


@pytest.mark.parametrize("size", [0, None, 32.0])
def test_a_size_that_is_none_is_refused(size):
    config = runs.config("tokenizer")
    config.model = dict(config.model) | {"image_size": size}
    with pytest.raises(ValueError, match=f"image_size={size} must be pixels"):
        tasks.build(config)


def test_an_unknown_model_is_refused():
    with pytest.raises(ValueError, match="no 'vq' in config.model; it has vqvae"):
        build(model__name="vq")
