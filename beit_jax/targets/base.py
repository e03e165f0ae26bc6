"""What pre-training knows of a target."""

from typing import Any, Protocol

import jax

from beit_jax.checkpoints.frozen import Network

Array = jax.Array
Tree = Any


class Target(Protocol):
    """What the masked patches of an image must predict, and how well they did."""

    outputs: int  # width of the prediction layer
    tokens: bool  # whether wanted values are ids in [0, outputs)
    image_size: tuple[int, int]  # height and width of the view that it looks at
    frozen: Network | None  # the network that makes it, if any

    def __call__(self, frozen: Tree | None, image: Array) -> Array:
        """(B, H, W, 3) uint8 -> wanted (B, N) int32 ids or (B, N, outputs) float32.

        `frozen` are the weights of the network of that name.
        """

    def loss(self, predicted: Array, wanted: Array) -> Array:
        """(..., outputs) against (...) ids or (..., outputs) -> (...) float32."""

    def best(self, predicted: Array) -> Array:
        """(..., outputs) float32 -> the single prediction, in the form of `wanted`."""

    def paint(self, frozen: Tree, wanted: Array, image: Array) -> Array:
        """Values of all patches -> (B, H, W, 3) uint8 pictures.

        `image` is the view itself, for what the values leave out.
        """
