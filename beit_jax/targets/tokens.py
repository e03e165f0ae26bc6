"""Visual tokens of a frozen tokenizer (BEiT, eq. 3)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from beit_jax.checkpoints.frozen import Frozen, Untrained
from beit_jax.lookup import build, lookup
from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.models.tokenizers import TOKENIZERS
from beit_jax.ranges import Count, Length
from beit_jax.targets.teachers import DTYPES, UNTRAINED

Array = jax.Array
Tree = Any


class Tokens:
    """Cross-entropy over the ids that a frozen tokenizer gives the patches.

    Args:
      checkpoint: of a tokenizer (a run's work directory, another project's file: see
        checkpoints/read.py), or "untrained": random weights from a fixed seed, which is
        only good for trying things out.
      image_size: side of the square view that the tokenizer sees, or height and width,
        in pixels; 0: what it was trained on. DALL-E's sees 112 where the encoder sees
        224.
      dtype: of the tokenizer's products. In "bfloat16" it is faster, and some tokens
        differ.
      untrained: `name` and settings of that random tokenizer.

    Raises:
      ValueError: no such checkpoint, or a view that does not give one token a patch.
    """

    tokens = True

    def __init__(
        self,
        grid: tuple[int, int],
        patch_size: Length,
        checkpoint: str,
        image_size: Count | tuple[int, int] = 0,
        dtype: str = "float32",
        untrained: Mapping[str, Any] = (),
    ):
        if dtype not in DTYPES:
            raise ValueError(f"task.target.dtype={dtype!r} is none of {DTYPES}")
        self.grid = tuple(grid)
        if checkpoint == UNTRAINED:
            self.frozen = Untrained(self._start)
            settings = {"name": "vqvae", "patch_size": patch_size} | dict(untrained)
        else:
            self.frozen = Frozen(checkpoint)
            settings = self._settings(untrained)
        trained_on = settings.pop("image_size", None)
        stride = settings.get("patch_size", patch_size)
        made_for = trained_on or tuple(side * stride for side in grid)
        made_for = (made_for, made_for) if isinstance(made_for, int) else made_for
        self._space = lookup(PIXEL_SPACES, settings.pop("pixels", "half"), "pixels")
        self._model = build(
            TOKENIZERS,
            settings,
            "config.task.target",
            dtype=jnp.dtype(dtype),
            image_size=made_for,
        )
        self.outputs = self._model.vocab
        self.image_size = self._view(image_size, trained_on)

    def _settings(self, untrained: Mapping[str, Any]) -> dict[str, Any]:
        """The network's, from the config of the run that trained it."""
        path, config = self.frozen.path, self.frozen.config
        if untrained:
            raise ValueError(
                f"task.target.untrained is for checkpoint='untrained', not {path}"
            )
        if config["task"]["name"] != "tokenizer":
            raise ValueError(
                f"{path} is of task {config['task']['name']!r}; the target needs "
                "one of task 'tokenizer'"
            )
        return dict(config["model"])

    def _view(self, asked, trained_on: int | None) -> tuple[int, int]:
        """Height and width of the view that gives one token a patch."""
        stride, (rows, columns) = self._model.patch_size, self.grid
        fits = (rows * stride, columns * stride)
        given = asked or trained_on or fits
        given = (given, given) if isinstance(given, int) else given
        sides = given if isinstance(given, (tuple, list)) else ()
        if tuple(sides) == fits:
            return fits
        if len(sides) != 2 or not all(isinstance(side, int) for side in sides):
            raise ValueError(
                f"task.target.image_size={asked!r} must be a side in pixels, or height "
                "and width"
            )
        down, across = (side // stride for side in given)
        raise ValueError(
            f"the tokenizer {'would see' if asked else 'was trained on'} "
            f"{given[0]}x{given[1]} px and gives {down}x{across} whole tokens of "
            f"{stride}x{stride} px, but there are {rows}x{columns} patches; let it see "
            f"{fits[0]}x{fits[1]} px by task.target.image_size="
            f"{fits if rows != columns else fits[0]}, or choose model.image_size and "
            "patch_size to have as many patches as tokens"
        )

    def _start(self) -> Tree:
        image = jnp.zeros((1, *self.image_size, 3))
        return self._model.init(jax.random.key(0), image)

    def __call__(self, frozen: Tree, image: Array) -> Array:
        # float32 is to give the same tokens on accelerators, which shorten products.
        exact = "highest" if self._model.dtype == jnp.float32 else None
        with jax.default_matmul_precision(exact):
            ids = self._model.apply(
                frozen, self._space.to_float(image), method=self._model.encode
            )
        return ids.reshape(len(image), -1)

    def loss(self, predicted: Array, wanted: Array) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(predicted, wanted)

    def best(self, predicted: Array) -> Array:
        return jnp.argmax(predicted, axis=-1).astype(jnp.int32)

    def paint(self, frozen: Tree, wanted: Array, image: Array) -> Array:
        if "decoder" not in frozen["params"]:  # FLAVA's has an encoder alone
            return jnp.full_like(image, 128)
        ids = wanted.reshape(-1, *self.grid)
        painted = self._model.apply(frozen, ids, method=self._model.decode)
        return self._space.to_uint8(painted)
