"""What an image tokenizer minimises. A new objective is a line in OBJECTIVES."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp

from beit_jax.checkpoints.frozen import Network
from beit_jax.lookup import build
from beit_jax.models.discrete_vae import DiscreteVAE
from beit_jax.models.dvae import DVAE, logit_laplace_nll
from beit_jax.models.gumbel import cosine_anneal, kl_to_uniform
from beit_jax.models.pixels import PIXEL_SPACES, PixelSpace
from beit_jax.models.vqkd import VQKD
from beit_jax.models.vqvae import VQVAE
from beit_jax.ranges import Count, Positive, Weight
from beit_jax.targets import distances
from beit_jax.targets.teachers import TEACHERS
from beit_jax.tasks.base import Array, Context, Tree


class Outcome(NamedTuple):
    """What a tokenizer made of (B, H, W, 3) images."""

    reconstruction: Array | None  # (B, H, W, 3) float32, in the images' pixel space
    ids: Array  # (B, h, w) int32
    terms: dict[str, Array]  # name -> (B,) float32; "loss" is what is minimised
    model_state: Tree


class Objective(Protocol):
    """Made of the rest of its section and, as far as it takes them, of the `model`, the
    pixel `space` of its images and the `grid` of their tokens."""

    paints: bool  # whether its outcomes have a reconstruction
    frozen: Mapping[str, Network]  # that it uses and never trains; see Context.frozen
    way_out: str  # what to change when few codes are in use

    def __call__(
        self, params: Tree, image: Array, weight: Array, ctx: Context, train: bool
    ) -> Outcome:
        """What it makes of (B, H, W, 3) floats.

        Args:
          weight: (B,) 0 or 1; nothing is learnt from images of weight 0.
          train: whether it is a step of training; an evaluation draws nothing and
            leaves model_state as it is.
        """


def _mean(x: Array) -> Array:
    """(B, ...) -> (B,)."""
    return jnp.mean(x.reshape(len(x), -1), axis=1)


class VectorQuantization:
    """Mean squared error of pixels plus the quantizer's loss (VQ-VAE, eq. 3)."""

    paints, frozen = True, {}

    def __init__(self, model: VQVAE):
        self._model = model
        change = "raise model.restart_below"
        if model.learning == "gradient":
            change = "set model.learning='ema', whose codes restart"
        self.way_out = f"{change}, or lower model.vocab or optim.lr"

    def __call__(
        self, params: Tree, image: Array, weight: Array, ctx: Context, train: bool
    ) -> Outcome:
        output, model_state = _quantized(self._model, params, image, weight, ctx, train)
        distance = output.quantized.loss
        error = _mean(jnp.square(output.reconstruction - image))
        terms = {"loss": error + distance, "quantization": distance}
        return Outcome(output.reconstruction, output.quantized.ids, terms, model_state)


class Relaxation:
    """The evidence lower bound of a discrete VAE, relaxed by Gumbel-softmax.

    loss = reconstruction (mean over pixels and channels)
         + kl_weight * KL(q(token | image) || uniform) (mean over tokens) / (3 P^2)

    with P pixels along a side of a token's patch: DALL-E's loss, whose bound is divided
    by the number of pixel values (arXiv:2102.12092, section 2.1 and appendix A.2). Its
    numbers are the defaults. An evaluation decodes the likeliest tokens, and its KL is
    weighed as at that step of training.

    Args:
      likelihood: "laplace" (logit-Laplace; model.pixels must be "dalle"), "mse" or
        "smooth_l1".
      temperature_start, temperature, temperature_steps: cosine from the first to the
        second over so many steps.
      kl_weight, kl_steps: cosine from 0 to the weight over so many steps.
      hard: decode one token for each patch in training too, with straight-through
        gradients.
    """

    paints, frozen = True, {}
    way_out = (
        "lower task.objective.kl_weight or raise its kl_steps, or let the temperature "
        "fall more slowly"
    )

    def __init__(
        self,
        model: DVAE | DiscreteVAE,
        space: PixelSpace,
        likelihood: str = "laplace",
        temperature_start: Positive = 1.0,
        temperature: Positive = 1 / 16,
        temperature_steps: Count = 150_000,
        kl_weight: Weight = 6.6,
        kl_steps: Count = 5_000,
        hard: bool = False,
    ):
        if likelihood not in LIKELIHOODS:
            raise ValueError(
                f"config.task.objective.likelihood={likelihood!r} is none of "
                f"{', '.join(LIKELIHOODS)}"
            )
        if min(temperature, temperature_start) <= 0:
            raise ValueError(
                f"config.task.objective: temperatures {temperature_start} and "
                f"{temperature} must be above 0"
            )
        if likelihood == "laplace" and not isinstance(model, DVAE):
            raise ValueError(
                "config.task.objective.likelihood='laplace' needs model 'dvae', whose "
                "decoder gives a mean and a scale; use 'mse' or 'smooth_l1'"
            )
        if likelihood == "laplace" and space != PIXEL_SPACES["dalle"]:
            raise ValueError(
                "config.task.objective.likelihood='laplace' is of pixels between 0 and "
                "1; set config.model.pixels='dalle'"
            )
        self._model, self._hard = model, hard
        self._likelihood = LIKELIHOODS[likelihood]
        self._temperatures = temperature_start, temperature, temperature_steps
        self._kl = 0.0, kl_weight, kl_steps

    def __call__(
        self, params: Tree, image: Array, weight: Array, ctx: Context, train: bool
    ) -> Outcome:
        temperature = rngs = None
        if train:
            temperature = cosine_anneal(ctx.step, *self._temperatures)
            rngs = {"gumbel": ctx.rng}
        variables = {"params": params, **ctx.model_state}
        output = self._model.apply(variables, image, temperature, self._hard, rngs=rngs)
        kl = _mean(kl_to_uniform(output.logits))
        error = _mean(self._likelihood(output, image))
        share = cosine_anneal(ctx.step, *self._kl) / (3 * self._model.patch_size**2)
        terms = {"loss": error + share * kl, "reconstruction": error, "kl": kl}
        if temperature is not None:
            terms["temperature"] = jnp.full(len(image), temperature)
        ids = jnp.argmax(output.logits, axis=-1)
        return Outcome(output.reconstruction, ids, terms, {})


class Distillation:
    """A frozen teacher's features of patches, foretold from codes (BEiT v2, eq. 3).

    loss = 1 - cosine (mean over patches) + the quantizer's loss. Where the model has a
    decoder of pixels, its mean squared error joins them.

    Args:
      teacher: name and settings, see beit_jax/targets/teachers.py; none (of other
        projects' files): only the decoder of pixels can be trained.
    """

    way_out = (
        "raise model.restart_below or model.kmeans_batches, or lower model.vocab or "
        "optim.lr"
    )

    def __init__(
        self,
        model: VQKD,
        space: PixelSpace,
        grid: tuple[int, int],
        teacher: Mapping[str, Any] = (),
    ):
        self._model, self._space, self._teacher = model, space, None
        self.frozen, self.paints = {}, model.pixel_blocks > 0
        if not teacher:
            return
        where = "config.task.objective.teacher"
        self._teacher = build(
            TEACHERS, teacher, where, grid=grid, patch_size=model.patch_size
        )
        self.frozen = {"teacher": self._teacher.frozen}
        if self._teacher.width != model.teacher_dim:
            raise ValueError(
                f"config.model.teacher_dim={model.teacher_dim}, but the teacher's "
                f"patches have {self._teacher.width} features; set it to that"
            )

    def __call__(
        self, params: Tree, image: Array, weight: Array, ctx: Context, train: bool
    ) -> Outcome:
        if train and not (self._teacher or self.paints):
            raise ValueError(
                "training a vqkd needs config.task.objective.teacher, "
                '{"name": "encoder", "checkpoint": RUN} say, or model.pixel_blocks'
            )
        output, model_state = _quantized(self._model, params, image, weight, ctx, train)
        terms = {"loss": output.quantized.loss, "quantization": output.quantized.loss}
        if self._teacher:
            terms["distillation"] = self._away(output.features, image, ctx)
            terms["loss"] += terms["distillation"]
        if self.paints:
            terms["loss"] += _mean(jnp.square(output.reconstruction - image))
        return Outcome(output.reconstruction, output.quantized.ids, terms, model_state)

    def _away(self, features: Array, image: Array, ctx: Context) -> Array:
        """(B,) 1 - cosine of the features to the teacher's, over an image's patches."""
        wanted = self._teacher(ctx.frozen["teacher"], self._space.to_255(image))
        told = features.reshape(wanted.shape)
        return _mean(distances.cosine(told, wanted))


def _quantized(
    model: VQVAE | VQKD,
    params: Tree,
    image: Array,
    weight: Array,
    ctx: Context,
    train: bool,
) -> tuple[Any, Tree]:
    """What a model with a codebook makes of images, and the codebook after that."""
    return model.apply(
        {"params": params, **ctx.model_state},
        image,
        train=train,
        weight=weight,
        mutable=[*ctx.model_state] if train else [],
        rngs={"codebook": ctx.rng} if train else None,
    )


def _smooth_l1(output, image: Array) -> Array:
    error = jnp.abs(output.reconstruction - image)
    return jnp.where(error < 1, 0.5 * jnp.square(error), error - 0.5)


LIKELIHOODS = {
    "laplace": lambda output, image: logit_laplace_nll(output.stats, image),
    "mse": lambda output, image: jnp.square(output.reconstruction - image),
    "smooth_l1": _smooth_l1,
}
OBJECTIVES = {
    "quantization": VectorQuantization,
    "relaxation": Relaxation,
    "distillation": Distillation,
}
# Of a model, unless `task.objective.name` says otherwise.
USUAL = {
    VQVAE: "quantization",
    DVAE: "relaxation",
    DiscreteVAE: "relaxation",
    VQKD: "distillation",
}
