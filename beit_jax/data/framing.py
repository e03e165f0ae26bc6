"""What chooses the frame of a view: what the rows of FRAMES share."""

from collections.abc import Mapping

import numpy as np

from beit_jax import lookup
from beit_jax.data.frame import Frame
from beit_jax.data.ops.geometry import Size


class Framing:
    """What FRAMES makes of a section's settings.

    Attributes:
      numbers: uniforms that a frame takes.
      by_labels: whether `choose` is asked, which needs a label map.
    """

    numbers: int
    by_labels = False

    def __call__(self, u: np.ndarray, whole: Size, size: Size) -> Frame:
        """Raises BadExample for an image that cannot be seen so."""
        raise NotImplementedError

    def choose(self, u: np.ndarray, frame: Frame, labels: np.ndarray) -> Frame:
        """`frame`, which the same uniforms gave, or another one of the same resize.

        Args:
          labels: (H, W) uint8 of the whole image.
        """
        raise NotImplementedError


def demand(name: str, rules: Mapping[str, bool]) -> None:
    """Raises ValueError for the first rule that does not hold."""
    lookup.demand(f"frame {name!r} must have", rules)
