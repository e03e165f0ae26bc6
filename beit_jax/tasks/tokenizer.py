"""Training an image tokenizer: reconstruct the image through visual tokens."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from beit_jax import lookup
from beit_jax.models import backbones, patches
from beit_jax.models.adapt import resize_positions
from beit_jax.models.tokenizers import TOKENIZERS
from beit_jax.tasks import base, on_device
from beit_jax.tasks.base import Array, Aux, Batch, Context, Sums, Tree
from beit_jax.tasks.objectives import OBJECTIVES, USUAL, Outcome
from beit_jax.tasks.scorers import Means, Numbers

_OF_CODES = ("perplexity", "codes_used")  # which a person watches
COLLAPSED = 0.1  # a codebook of which less is in use is worth a warning
SETTLED = 0.25  # of a run: before, codes may still come into use


class Tokenizer(base.Defaults):
    """A tokenizer of beit_jax/models/tokenizers.py with its objective.

    In training, usage and perplexity of the codebook are those of all batches since
    the last report (log.every_steps).

    Args:
      objective: perhaps a name, and settings, see beit_jax/tasks/objectives.py.
    """

    columns = {"reconstruction": ("image", "reconstruction")}

    def __init__(self, config: ConfigDict, objective: Mapping[str, Any] = ()):
        settings = dict(config.model)
        self._space = backbones.pixel_space(settings)
        size = patches.image_size(settings)
        settings.pop("image_size")
        self.model = self.network = lookup.build(
            TOKENIZERS,
            settings,
            "config.model",
            dtype=jnp.dtype(config.dtype),
            image_size=size,
        )
        if isinstance(objective, str):
            raise ValueError(
                f"config.task.objective={objective!r} must be a section of settings"
            )
        self._objective = lookup.build(
            OBJECTIVES,
            {"name": USUAL[type(self.model)], **dict(objective)},
            "config.task.objective",
            model=self.model,
            space=self._space,
            grid=self._grid(size),
        )
        self.frozen = self._objective.frozen
        paints = self._objective.paints
        self.headline = ("loss", *(["psnr"] if paints else []), *_OF_CODES)
        self.outputs = ("tokens", *(["reconstruction"] if paints else []))
        self.train_spec = {
            "image": jax.ShapeDtypeStruct((*size, 3), jnp.uint8),
            **on_device.example_spec(config, labels=False),
        }

    def init(self, rng: Array, batch: Batch) -> Tree:
        names = ("params", "codebook")
        rngs = dict(zip(names, jax.random.split(rng, len(names)), strict=True))
        variables = dict(self.model.init(rngs, self._space.to_float(batch["image"])))
        params = variables.pop("params")
        return {"params": params, "model_state": variables}

    def adapt(self, params: Tree, model: Mapping[str, Any]) -> Tree:
        """Positions, where it has some, as our image has them."""
        ours = self.train_spec["image"].shape[:2]
        sizes = self._grid(patches.image_size(model)), self._grid(ours)
        return resize_positions(params, *sizes)

    def _grid(self, size: tuple[int, int]) -> patches.Grid:
        return size[0] // self.model.patch_size, size[1] // self.model.patch_size

    def train_loss(self, params: Tree, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        image = self._space.to_float(on_device.pixels(batch, "image"))
        outcome = self._outcome(params, image, batch["weight"], ctx, train=True)
        sums = self._sums(outcome, image, batch["weight"])
        loss, images = sums["loss"]
        return loss / jnp.maximum(images, 1.0), Aux(sums, outcome.model_state)

    def eval_step(self, params: Tree, batch: Batch, ctx: Context) -> Sums:
        image, weight = self._space.to_float(batch["image"]), batch["weight"]
        return self._sums(self._outcome(params, image, weight, ctx), image, weight)

    def _outcome(
        self, params, image, weight, ctx: Context, train: bool = False
    ) -> Outcome:
        return self._objective(params, image, weight, ctx, train)

    def _sums(self, outcome: Outcome, image: Array, weight: Array) -> Sums:
        each = dict(outcome.terms)
        if outcome.reconstruction is not None:
            error = outcome.reconstruction - image
            error = error * jnp.array(self._space.std)  # of pixels in [0, 1]
            each["mse"] = jnp.mean(jnp.square(error), axis=(1, 2, 3))
        images = jnp.sum(weight)
        ids = outcome.ids.reshape(len(image), -1)
        uses = jnp.broadcast_to(weight[:, None], ids.shape)
        share = jnp.zeros(self.model.vocab).at[ids].add(uses)
        return {name: (value @ weight, images) for name, value in each.items()} | {
            "code_share": (share, images * ids.shape[1])
        }

    def train_scorer(self) -> Means:
        return Means(self._of_codes)

    def _of_codes(self, means: Mapping, weights: Mapping) -> Numbers:
        """PSNR in dB, tokens counted, codes in use, perplexity."""
        share = means["code_share"]
        used = share[share > 0]
        psnr = {"psnr": float(-10 * np.log10(means["mse"]))} if "mse" in means else {}
        return psnr | {
            "tokens": float(weights["code_share"]),
            "codes_used": float(len(used) / len(share)),
            "dead_codes": float(len(share) - len(used)),
            "perplexity": float(np.exp(-np.sum(used * np.log(used)))),
        }

    def pictures(self, params: Tree, batch: Batch, ctx: Context) -> dict[str, Array]:
        """image | reconstruction; nothing of an objective that paints nothing"""
        if not self._objective.paints:
            return {}
        image = self._space.to_float(batch["image"])
        outcome = self._outcome(params, image, batch["weight"], ctx)
        made = self._space.to_uint8(outcome.reconstruction)
        return {"reconstruction": jnp.concatenate([batch["image"], made], axis=2)}

    def predict(
        self, what: str, params: Tree, batch: Batch, ctx: Context
    ) -> dict[str, Array]:
        if what == "reconstruction":
            return {"picture": self.pictures(params, batch, ctx)["reconstruction"]}
        image = self._space.to_float(batch["image"])
        return {"tokens": self._outcome(params, image, batch["weight"], ctx).ids}

    def warnings(self, metrics: Mapping[str, float], progress: float) -> dict[str, str]:
        if progress < SETTLED:
            return {}
        used, vocab = metrics["codes_used"], self.model.vocab
        possible = min(vocab, metrics["tokens"])  # so few tokens use but few codes
        if used * vocab < COLLAPSED * possible:
            found = f"{used:.1%} of {vocab} codes are in use"
        elif metrics["perplexity"] < COLLAPSED * used * vocab:
            found = (
                f"{used:.1%} of {vocab} codes are in use, but so unevenly as if they "
                f"were {metrics['perplexity']:.1f}"
            )
        else:
            return {}
        return {"codebook collapse": f"{found}; {self._objective.way_out}"}
