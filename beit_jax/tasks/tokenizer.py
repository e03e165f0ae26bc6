"""Training an image tokenizer: reconstruct the image through visual tokens."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from beit_jax import tables
from beit_jax.models.vqvae import VQVAE, VQVAEOutput
from beit_jax.tasks import augment, base, encoders
from beit_jax.tasks.base import Array, Aux, Batch, Context, Sums, Tree

MODELS = {"vqvae": VQVAE}
COLLAPSED = 0.1  # a codebook of which less is in use is worth a warning


class Tokenizer(base.Defaults):
    """Mean squared error of pixels plus the commitment loss (VQ-VAE, eq. 3)."""

    headline = ("loss", "psnr", "perplexity", "codes_used")

    def __init__(self, config: ConfigDict):
        settings = dict(config.model)
        self._space = encoders.pixel_space(settings)
        size = settings.pop("image_size", None)
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"config.model.image_size={size!r} must be pixels, >= 1")
        self.model = tables.build(
            MODELS, settings, "config.model", dtype=jnp.dtype(config.dtype)
        )
        self.example_spec = {
            "image": jax.ShapeDtypeStruct((size, size, 3), jnp.uint8),
            **augment.example_spec(config, labels=False),
        }

    def init(self, rng: Array, batch: Batch) -> Tree:
        names = ("params", "codebook")
        rngs = dict(zip(names, jax.random.split(rng, len(names)), strict=True))
        variables = self.model.init(rngs, self._space.to_float(batch["image"]))
        params = variables.pop("params")
        return {"params": params, "model_state": variables}

    def train_loss(self, params: Tree, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        image = self._space.to_float(augment.pixels(batch, "image"))
        output, model_state = self.model.apply(
            {"params": params, **ctx.model_state},
            image,
            train=True,
            weight=batch["weight"],
            mutable=list(ctx.model_state),
            rngs={"codebook": ctx.rng},
        )
        sums = self._sums(output, image, batch["weight"])
        loss, images = sums["loss"]
        return loss / jnp.maximum(images, 1.0), Aux(sums, model_state)

    def eval_step(self, params: Tree, batch: Batch, ctx: Context) -> Sums:
        image = self._space.to_float(batch["image"])
        output = self.model.apply({"params": params, **ctx.model_state}, image)
        return self._sums(output, image, batch["weight"])

    def _sums(self, output: VQVAEOutput, image: Array, weight: Array) -> Sums:
        error = output.reconstruction - image
        pixel_error = error * jnp.array(self._space.std)  # of pixels in [0, 1]
        error, pixel_error = (
            jnp.mean(jnp.square(x), axis=(1, 2, 3)) @ weight
            for x in (error, pixel_error)
        )
        commitment = output.quantized.loss @ weight
        images = jnp.sum(weight)
        ids = output.quantized.ids.reshape(len(image), -1)
        each = jnp.broadcast_to(weight[:, None], ids.shape)
        uses = jnp.zeros(self.model.vocab).at[ids].add(each)
        return {
            "loss": (error + commitment, images),
            "mse": (pixel_error, images),
            "commitment": (commitment, images),
            "code_share": (uses, images * ids.shape[1]),
        }

    def summarize(self, outputs: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """Adds PSNR in dB, codes in use and perplexity to the sums' means."""
        means = base.means(outputs)
        share = means.pop("code_share")
        used = share[share > 0]
        numbers = {name: float(value) for name, value in means.items()}
        return numbers | {
            "psnr": float(-10 * np.log10(means["mse"])),
            "codes_used": float(len(used) / len(share)),
            "perplexity": float(np.exp(-np.sum(used * np.log(used)))),
        }

    def pictures(self, params: Tree, batch: Batch, ctx: Context) -> dict[str, Array]:
        """image | reconstruction"""
        image = self._space.to_float(batch["image"])
        output = self.model.apply({"params": params, **ctx.model_state}, image)
        made = self._space.to_uint8(output.reconstruction)
        return {"reconstruction": jnp.concatenate([batch["image"], made], axis=2)}

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        share = metrics["codes_used"]
        if share >= COLLAPSED:
            return []
        return [
            f"codebook collapse: {share:.1%} of {self.model.vocab} codes are in use; "
            "raise model.restart_below, or lower model.vocab or optim.lr"
        ]
