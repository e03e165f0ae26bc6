"""Visual tokens of a frozen VQ-VAE (BEiT eq. 3, with a VQ-VAE in the dVAE's place)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.models.vqvae import VQVAE
from beit_jax.tables import call, lookup
from beit_jax.weights import find_step, read_config, restore_params

Array = jax.Array
Tree = Any

UNTRAINED = "untrained"


class VQVAETokens:
    """Cross-entropy over the ids that a frozen tokenizer gives the patches.

    Args:
      checkpoint: of a run with the tokenizer task (a work directory, say), or
        "untrained": random weights from a fixed seed, which is only good for trying
        things out.
      untrained: settings of that random tokenizer.

    Raises:
      ValueError: no such checkpoint, or one whose grid of tokens is not the patch grid.
    """

    tokens = True

    def __init__(
        self,
        grid: tuple[int, int],
        patch_size: int,
        checkpoint: str,
        untrained: Mapping[str, Any] = (),
    ):
        # Settled once: a tokenizer that trains on must not change what is predicted.
        self.step = None if checkpoint == UNTRAINED else find_step(checkpoint)
        settings, stride, size = self._settings(dict(untrained), grid, patch_size)
        self._space = lookup(PIXEL_SPACES, settings.pop("pixels", "half"), "pixels")
        self._model = call(VQVAE, settings, "config.task.target", dtype=jnp.float32)
        self.outputs = self._model.vocab
        self.grid, self.image_size = grid, grid[0] * stride
        if checkpoint != UNTRAINED and size != self.image_size:
            raise ValueError(
                f"tokenizer {checkpoint} was trained on {size} px and gives "
                f"{size // stride}x{size // stride} tokens, but there are "
                f"{grid[0]}x{grid[1]} patches; use image_size / patch_size = "
                f"{size // stride} or train a tokenizer on {self.image_size} px"
            )

    def _settings(self, untrained, grid, patch_size) -> tuple[dict, int, int]:
        if self.step is None:
            return untrained | {"patch_size": patch_size}, patch_size, 0
        if untrained:
            raise ValueError(
                f"task.target.untrained is for checkpoint='untrained', not {self.step}"
            )
        config = read_config(self.step)
        if config["task"]["name"] != "tokenizer":
            raise ValueError(
                f"{self.step} is a run of task {config['task']['name']!r}; the target "
                "needs one of task 'tokenizer'"
            )
        settings = dict(config["model"])
        size = settings.pop("image_size")
        settings.pop("name")
        return settings, settings["patch_size"], size

    def load_frozen(self) -> Tree:
        if self.step is not None:
            saved = restore_params(self.step)
            return {"params": saved.params, **saved.model_state}
        image = jnp.zeros((1, self.image_size, self.image_size, 3))
        return jax.jit(self._model.init)(jax.random.key(0), image)

    def __call__(self, frozen: Tree, image: Array) -> Array:
        ids = self._model.apply(
            frozen, self._space.to_float(image), method=self._model.encode
        )
        return ids.reshape(len(image), -1)

    def loss(self, predicted: Array, wanted: Array) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(predicted, wanted)

    def best(self, predicted: Array) -> Array:
        return jnp.argmax(predicted, axis=-1).astype(jnp.int32)

    def paint(self, frozen: Tree, wanted: Array) -> Array:
        ids = wanted.reshape(-1, *self.grid)
        image = self._model.apply(frozen, ids, method=self._model.decode)
        return self._space.to_uint8(image)
