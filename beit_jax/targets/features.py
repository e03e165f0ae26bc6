"""Features that a frozen network gives the patches: MVP, EVA, MILAN, data2vec."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from beit_jax.lookup import build
from beit_jax.ranges import Length, Positive
from beit_jax.targets import distances
from beit_jax.targets.teachers import TEACHERS

Array = jax.Array
Tree = Any


class Features:
    """Distance to what a teacher, an encoder that is not trained, makes of a patch.

    The teacher sees a view of its own, with one of its patches for each of ours, in its
    own pixel space. MVP (arXiv:2203.05175) and EVA (arXiv:2211.07636) have CLIP for it,
    and so has, with task.predict="all", MILAN (arXiv:2208.06049).

    Args:
      teacher: name and settings, see beit_jax/targets/teachers.py.
      loss: "cosine" (1 less the cosine; EVA and MILAN have twice that), "smooth_l1" or
        "mse".
      beta: where smooth L1 turns from a square to a line.

    Raises:
      ValueError: no such loss or teacher.
    """

    tokens = False

    def __init__(
        self,
        grid: tuple[int, int],
        patch_size: Length,
        teacher: Mapping[str, Any],
        loss: str = "cosine",
        beta: Positive = 1.0,
    ):
        if loss not in LOSSES:
            raise ValueError(
                f"task.target.loss={loss!r} is none of {', '.join(LOSSES)}"
            )
        where = "config.task.target.teacher"
        self._teacher = build(
            TEACHERS, teacher, where, grid=grid, patch_size=patch_size
        )
        self.grid, self.frozen = tuple(grid), self._teacher.frozen
        self.image_size = self._teacher.image_size
        self.outputs = self._teacher.width
        self._distance, self._beta = LOSSES[loss], beta

    def __call__(self, frozen: Tree, image: Array) -> Array:
        return self._teacher(frozen, image)

    def loss(self, predicted: Array, wanted: Array) -> Array:
        return self._distance(predicted, wanted, self._beta)

    def best(self, predicted: Array) -> Array:
        return predicted

    def paint(self, frozen: Tree, wanted: Array, image: Array) -> Array:
        """The three main directions of the teacher's features, as red, green, blue."""
        seen = self(frozen, image).reshape(-1, self.outputs)
        mean = seen.mean(axis=0)
        _, directions = jnp.linalg.eigh(jnp.cov(seen.T))
        main = directions[:, -3:]
        spread = jnp.std(seen @ main, axis=0) + 1e-12
        colours = 0.5 + 0.25 * ((wanted - mean) @ main) / spread
        picture = jnp.clip(colours, 0, 1).reshape(-1, *self.grid, 3)
        for axis in (1, 2):
            times = self.image_size[axis - 1] // self.grid[axis - 1]
            picture = picture.repeat(times, axis)
        return jnp.round(255 * picture).astype(jnp.uint8)


LOSSES: dict[str, Callable[[Array, Array, float], Array]] = {
    "cosine": lambda predicted, wanted, beta: distances.cosine(predicted, wanted),
    "smooth_l1": distances.smooth_l1,
    "mse": lambda predicted, wanted, beta: distances.mse(predicted, wanted),
}
