"""What pre-training knows of a target."""

import pathlib
from typing import Any, Protocol

import jax

Array = jax.Array
Tree = Any


class Target(Protocol):
    """What the masked patches of an image must predict, and how well they did."""

    outputs: int  # width of the prediction layer
    tokens: bool  # whether wanted values are ids in [0, outputs)
    image_size: tuple[int, int]  # height and width of the view that it looks at
    step: pathlib.Path | None  # the checkpoint that its weights come from, if any

    def load_frozen(self) -> Tree:
        """Weights of a tokenizer, {} if there are none."""

    def __call__(self, frozen: Tree, image: Array) -> Array:
        """(B, H, W, 3) uint8 -> wanted (B, N) int32 ids or (B, N, outputs) float32."""

    def loss(self, predicted: Array, wanted: Array) -> Array:
        """(..., outputs) against (...) ids or (..., outputs) -> (...) float32."""

    def best(self, predicted: Array) -> Array:
        """(..., outputs) float32 -> the single prediction, in the form of `wanted`."""

    def paint(self, frozen: Tree, wanted: Array, image: Array) -> Array:
        """Values of all patches -> (B, H, W, 3) uint8 pictures.

        `image` is the view itself, for what the values leave out.
        """
