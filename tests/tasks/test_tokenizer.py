"""Tokenizer training: what is measured, and when it is said to go wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax import tasks
from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.models.tokenizers import TOKENIZERS
from tests import tiny
from tests.tasks import runs

SIZE = {"image_size": 32, "patch_size": 8}
# The smallest settings of every tokenizer; a new one needs a line here.
MODELS = {
    "discrete_vae": SIZE | tiny.DISCRETE_VAE,
    "dvae": SIZE | tiny.DVAE | {"pixels": "dalle", "patch_size": 4},
    "vqkd": SIZE | tiny.VQKD,
    "vqvae": SIZE | tiny.VQVAE,
}
OBJECTIVES = {"discrete_vae": {"likelihood": "mse"}, "dvae": {}, "vqvae": {}}
OBJECTIVES |= {"vqkd": {"teacher": tiny.TEACHER}}

NARROW = tiny.TEACHER | {"untrained": tiny.TEACHER["untrained"] | {"dim": 8}}


def build(**changes):
    return tasks.build(runs.config("tokenizer", **changes))


def config(model: str, **objective):
    """The tiny recipe with another network."""
    made = runs.config("tokenizer", model__pixels="half")
    made.model = {"name": model, "pixels": "half"} | MODELS[model]
    made.task.objective = OBJECTIVES[model] | objective
    return made


def sums(mse: float, uses) -> dict:
    """Of a batch of ten images."""
    uses = np.asarray(uses, np.float32)
    return {
        "loss": (mse * 10, 10.0),
        "mse": (mse * 10, 10.0),
        "quantization": (0.0, 10.0),
        "code_share": (uses, uses.sum()),
    }


def test_psnr_has_its_closed_form():
    task, uses = build(), np.ones(32)
    metrics = runs.metrics(task, sums(0.01, uses))
    np.testing.assert_allclose(metrics["psnr"], 20, rtol=1e-6)  # -10 log10(0.01)
    two = runs.metrics(task, sums(0.005, uses), sums(0.015, uses))
    np.testing.assert_allclose(two["psnr"], 20, rtol=1e-6)


def test_perplexity_of_equally_used_codes_is_their_number():
    uses = np.zeros(32)
    uses[4:12] = 5
    metrics = runs.metrics(build(), sums(0.1, uses))
    np.testing.assert_allclose(metrics["perplexity"], 8, rtol=1e-6)
    assert metrics["codes_used"] == 8 / 32
    assert metrics["dead_codes"] == 24


def test_perplexity_counts_the_codes_of_all_batches():
    first, second = np.zeros(32), np.zeros(32)
    first[0], second[1] = 30, 10
    metrics = runs.metrics(build(), sums(0.1, first), sums(0.1, second))
    entropy = -0.75 * np.log(0.75) - 0.25 * np.log(0.25)
    np.testing.assert_allclose(metrics["perplexity"], np.exp(entropy), rtol=1e-6)


def test_a_collapsed_codebook_is_told():
    def told(codes_used, perplexity, tokens=99, progress=1.0):
        numbers = {"codes_used": codes_used, "perplexity": perplexity, "tokens": tokens}
        return build().warnings(numbers, progress).get("codebook collapse", "")

    assert told(0.05, 1.5).startswith("5.0% of 32 codes are in use")
    assert "so unevenly as if they were 1.5; raise model.restart_below" in told(
        0.5, 1.5
    )
    assert told(0.5, 1.7) == ""
    assert told(2 / 32, 2.0, tokens=2) == ""
    assert told(0.05, 1.5, progress=0.2) == ""  # codes may still come into use


def test_the_sums_are_those_of_the_reconstruction():
    task, params, ctx, batch = runs.start(runs.config("tokenizer"))
    image = np.asarray(PIXEL_SPACES["half"].to_float(batch["image"]))
    output = jax.jit(task.model.apply)({"params": params, **ctx.model_state}, image)
    metrics = runs.metrics(task, jax.jit(task.eval_step)(params, batch, ctx))
    error = np.square((output.reconstruction - image) / 2).mean()  # in [0, 1]
    np.testing.assert_allclose(metrics["mse"], error, rtol=1e-5)
    distance = output.quantized.loss.mean()
    np.testing.assert_allclose(metrics["quantization"], distance, rtol=1e-5)
    wanted = 4 * metrics["mse"] + metrics["quantization"]  # the loss is in [-1, 1]
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
    words = "no 'vq' in config.model; it has discrete_vae, dvae, vqkd, vqvae"
    with pytest.raises(ValueError, match=words):
        build(model__name="vq")


@pytest.mark.parametrize("model", TOKENIZERS)
def test_every_tokenizer_learns_to_reconstruct(model):
    made = config(model)
    made.optim.update({"lr": 3e-3, "warmup_steps": 2})
    task, params, ctx, batch = runs.start(made)
    now, update = runs.updating(task, made, params, ctx)
    losses = []
    for _ in range(8):
        now, sums = update(now, ctx.frozen, batch)
        losses.append(float(sums["mse"][0]))
    assert losses[-1] < losses[0]
    metrics = runs.metrics(task, jax.device_get(sums))
    assert metrics.keys() >= {"loss", "psnr", "perplexity", "codes_used", "dead_codes"}


@pytest.mark.parametrize("model", TOKENIZERS)
def test_nothing_is_learnt_from_images_of_weight_0(model):
    task, params, ctx, batch = runs.start(config(model))
    ctx = ctx._replace(model_state=_started(ctx.model_state))
    gradient = jax.jit(jax.grad(task.train_loss, has_aux=True))
    batch["weight"][0] = 0
    other = batch | {"image": batch["image"].copy()}
    other["image"][0] = 255 - other["image"][0]
    for a, b in zip(
        jax.tree.leaves(gradient(params, batch, ctx)[0]),
        jax.tree.leaves(gradient(params, other, ctx)[0]),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def _started(model_state):
    """A codebook that has begun, so that it is not drawn from this batch."""
    return jax.tree.map(
        lambda x: np.ones_like(x) if x.dtype == bool else x, model_state
    )


@pytest.mark.parametrize("likelihood", ["laplace", "mse"])
def test_the_bound_is_reconstruction_plus_weighed_divergence(likelihood):
    made = config("dvae", likelihood=likelihood, kl_weight=2.0, kl_steps=10)
    task, params, ctx, batch = runs.start(made)
    image = np.asarray(PIXEL_SPACES["dalle"].to_float(batch["image"]))
    output = jax.jit(task.model.apply)({"params": params}, image)
    mu, b = output.stats[..., :3], np.exp(output.stats[..., 3:])
    density = np.exp(-np.abs(np.log(image / (1 - image)) - mu) / b) / (
        2 * b * image * (1 - image)
    )
    q = np.asarray(jax.nn.softmax(output.logits))
    wanted = {
        "laplace": -np.log(density).mean(),
        "mse": np.square(output.reconstruction - image).mean(),
    }[likelihood]
    kl = (q * np.log(q * 32)).sum(-1).mean()
    for step, weight in ((0, 0.0), (5, 1.0), (10, 2.0), (99, 2.0)):
        ctx = ctx._replace(step=np.int32(step))
        metrics = runs.metrics(task, jax.jit(task.eval_step)(params, batch, ctx))
        np.testing.assert_allclose(metrics["kl"], kl, rtol=1e-4)
        np.testing.assert_allclose(metrics["reconstruction"], wanted, rtol=1e-4)
        bound = wanted + weight / (3 * 4**2) * kl
        np.testing.assert_allclose(metrics["loss"], bound, rtol=1e-4)


def test_the_temperature_falls_as_the_objective_says():
    task, params, ctx, batch = runs.start(config("dvae", temperature_steps=10))
    for step, wanted in ((0, 1.0), (5, (1 + 1 / 16) / 2), (10, 1 / 16), (99, 1 / 16)):
        _, aux = jax.jit(task.train_loss)(
            params, batch, ctx._replace(step=np.int32(step))
        )
        value, weight = aux.metrics["temperature"]
        np.testing.assert_allclose(value / weight, wanted, rtol=1e-5)


@pytest.mark.parametrize("hard", [False, True])
def test_the_loss_is_of_draws_at_the_objectives_temperature(hard):
    made = config("discrete_vae", hard=hard, kl_weight=0.0, temperature_steps=10)
    task, params, ctx, batch = runs.start(made)
    ctx = ctx._replace(rng=jax.random.key(0, impl="rbg"))  # quick to compile
    image = np.asarray(PIXEL_SPACES["half"].to_float(batch["image"]))

    @jax.jit
    def losses(step, temperature):
        loss, _ = task.train_loss(params, batch, ctx._replace(step=step))
        output = task.model.apply(
            {"params": params}, image, temperature, hard, rngs={"gumbel": ctx.rng}
        )
        return loss, jnp.mean(jnp.square(output.reconstruction - image))

    for step, temperature in ((0, 1.0), (10, 1 / 16)):
        got, wanted = losses(step, temperature)
        np.testing.assert_allclose(got, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    "model, objective, message",
    [
        ("dvae", {"likelihood": "l2"}, "'l2' is none of laplace, mse, smooth_l1"),
        ("dvae", {"temperature": 0.0}, "must be above 0"),
        ("dvae", {"kl_wait": 1.0}, "no setting 'kl_wait'; did you mean 'kl_weight'"),
        ("discrete_vae", {"likelihood": "laplace"}, "needs model 'dvae'"),
        ("vqvae", {"likelihood": "mse"}, "takes no setting 'likelihood'"),
        ("vqkd", {"teacher": NARROW}, "teacher_dim=16, but the teacher's .* have 8"),
        ("vqkd", {"teacher": {"name": "clap"}}, "no 'clap' in .*teacher; it has enco"),
    ],
)
def test_objectives_that_do_not_fit_are_refused(model, objective, message):
    with pytest.raises(ValueError, match=message):
        tasks.build(config(model, **objective))


def test_without_a_teacher_tokens_can_be_told_and_nothing_be_trained():
    made = config("vqkd", teacher={})
    made.model.pixel_blocks = 0
    task, params, ctx, batch = runs.start(made)
    assert not task.frozen
    assert task.predict("tokens", params, batch, ctx)["tokens"].shape == (4, 4, 4)
    with pytest.raises(ValueError, match="needs config.task.objective.teacher"):
        task.train_loss(params, batch, ctx)


def test_a_decoder_of_pixels_can_learn_from_codes_that_rest():
    made = config("vqkd", teacher={})
    made.optim.update({"train": "decoder,to_pixels", "lr": 3e-3, "warmup_steps": 1})
    made.model.decay = 1.0
    task, params, ctx, batch = runs.start(made)
    ctx = ctx._replace(model_state=_started(ctx.model_state))
    now, update = runs.updating(task, made, params, ctx)
    codebooks = []
    for _ in range(4):
        now, _ = update(now, ctx.frozen, batch)
        codes = now.model_state["codebook"]["quantizer"]["embedding"]
        codebooks.append(np.array(codes))
    rest = params.keys() - {"decoder", "to_pixels"}
    for name in rest:
        jax.tree.map(np.testing.assert_array_equal, now.params[name], params[name])
    np.testing.assert_allclose(codebooks[-1], codebooks[0], atol=2e-7)  # unit ones


def test_an_image_of_another_size_gets_its_positions():
    _, params, _, _ = runs.start(config("vqkd"))
    made = config("vqkd")
    made.model.image_size = 48
    larger = tasks.build(made).adapt(params, config("vqkd").model)
    for vit in ("encoder", "student", "decoder"):
        assert larger[vit]["pos_embed"].shape == (1, 1 + 6 * 6, 16)


def test_the_laplace_likelihood_needs_dalles_pixels():
    made = config("dvae")
    made.model.pixels = "half"
    with pytest.raises(ValueError, match="set config.model.pixels='dalle'"):
        tasks.build(made)
