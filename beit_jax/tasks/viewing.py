"""Several views of an image, whose predictions are averaged: test-time augmentation.

`five` and `ten` are torchvision's FiveCrop and TenCrop of what Resize and a CenterCrop
of the same size leave: four corners and the centre, and the same mirrored. So the data
show the whole square, of which an evaluation else sees the centre.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from beit_jax import lookup

Array = jax.Array
Size = tuple[int, int]


def _plain(image: Array, size: Size) -> list[Array]:
    return [image]


def _flip(image: Array, size: Size) -> list[Array]:
    return [image, image[:, :, ::-1]]


def _five(image: Array, size: Size) -> list[Array]:
    rooms = [whole - part for whole, part in zip(image.shape[1:3], size, strict=True)]
    down, across = rooms
    starts = [tuple(round(room / 2) for room in rooms)]  # the centre
    starts += [(0, 0), (0, across), (down, 0), (down, across)]
    return [
        image[:, top : top + size[0], left : left + size[1]] for top, left in starts
    ]


def _ten(image: Array, size: Size) -> list[Array]:
    return [*_five(image, size), *_five(image[:, :, ::-1], size)]


# task.tta -> images (B, H, W, 3), size of a view -> views, the usual one first.
VIEWS: dict[str, Callable[[Array, Size], list[Array]]] = {
    "": _plain,
    "flip": _flip,
    "five": _five,
    "ten": _ten,
}
CROPS = ("five", "ten")


class Viewing:
    """The views of an evaluation.

    Args:
      name: of VIEWS.
      data: the section `data` of the run.
      size: height and width of a view.

    Raises:
      ValueError: no such views, or no room for crops.
    """

    def __init__(self, name: str, data: ConfigDict, size: Size):
        self._cut = lookup.lookup(VIEWS, name, "config.task.tta")
        self._crops, self.size = name in CROPS, size
        self.shown = size  # height and width of the images that it wants
        if self._crops:
            share = _share(name, data.eval_frame)
            self.shown = tuple(int(side / share) for side in size)  # as frames.Centre

    def __call__(self, image: Array) -> list[Array]:
        """(B, *shown, 3) -> views (B, *size, 3), the usual one first."""
        return self._cut(image, self.size)

    def data(self, data: ConfigDict) -> ConfigDict:
        """The section `data` for images of `shown`."""
        if not self._crops:
            return data
        wide = data.copy_and_resolve_references()
        wide.eval_frame.crop_pct = 1.0
        return wide


def mean_of_logs(logs: list[Array]) -> Array:
    """The logarithm of the mean of probabilities, given by theirs."""
    if len(logs) == 1:
        return logs[0]
    return jax.nn.logsumexp(jnp.stack(logs), axis=0) - jnp.log(len(logs))


def _share(name: str, frame: ConfigDict) -> float:
    share = frame.get("crop_pct", 1.0)
    if frame.name != "centre" or share >= 1:
        raise ValueError(
            f"config.task.tta={name!r} looks beside the centre: data.eval_frame must "
            f"be 'centre' with a crop_pct below 1, not {frame.to_dict()}; 'flip' goes "
            "with any"
        )
    return share
