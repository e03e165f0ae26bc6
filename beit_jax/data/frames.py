"""The named ways to choose the frame of a view, for `data.frame` and `data.eval_frame`.

Each is called with uniforms, as many as its `numbers` says, the size of the image and
the size of the view, and gives a Frame. Those that draw nothing show the same part of
an image every time. Any of them may serve training and evaluation.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from beit_jax import lookup
from beit_jax.data.frame import Frame
from beit_jax.data.framing import Framing, demand
from beit_jax.data.ops import geometry
from beit_jax.data.ops.geometry import Box, Size
from beit_jax.data.scaled import Scaled
from beit_jax.data.sources import BadExample
from beit_jax.ranges import Count, Portion, Positive


class RandomResized(Framing):
    """A random part of the image, resized; torchvision's RandomResizedCrop."""

    numbers = geometry.BOX_NUMBERS

    def __init__(
        self,
        min_scale: Positive = 0.08,  # of the image's area
        max_scale: Positive = 1.0,  # of it, too
        min_ratio: Positive = 3 / 4,  # width / height
        max_ratio: Positive = 4 / 3,  # width / height, too
    ):
        demand(
            "random_resized",
            {
                f"0 < min_scale <= max_scale <= 1, not {min_scale}, {max_scale}": (
                    0 < min_scale <= max_scale <= 1
                ),
                f"0 < min_ratio <= max_ratio, not {min_ratio}, {max_ratio}": (
                    0 < min_ratio <= max_ratio
                ),
            },
        )
        self._scale, self._ratio = (min_scale, max_scale), (min_ratio, max_ratio)

    def __call__(self, u: np.ndarray, whole: Size, size: Size) -> Frame:
        box = geometry.random_box(u, *whole, self._scale, self._ratio)
        return Frame(whole, whole, box, size)


class Square(Framing):
    """A random square, as DALL-E's tokenizer was trained, with interpolation="area"."""

    numbers = 5

    def __init__(self, zoom: tuple = (9 / 8, 12 / 8)):
        """Its side is cut from a resized image.

        Args:
          zoom: lowest and highest short side of that, as multiples of the view's: see
            geometry.square_box.
        """
        good = len(zoom) == 2 and 1 <= zoom[0] <= zoom[1]
        demand("square", {f"a zoom of 1 <= low <= high, not {zoom}": good})
        self._zoom = tuple(zoom)

    def __call__(self, u: np.ndarray, whole: Size, size: Size) -> Frame:
        if size[0] != size[1]:
            raise ValueError(
                f"frame 'square' gives square views, not {size[0]}x{size[1]}; use "
                "'random_resized'"
            )
        box = geometry.square_box(u, *whole, size[0], self._zoom)
        return Frame(whole, whole, box, size)


class Pad(Framing):
    """The image moved by up to `pad` pixels and never resized; for tiny images."""

    numbers = 2

    def __init__(
        self,
        pad: Count,  # pixels
    ):
        self._pad = pad

    def __call__(self, u: np.ndarray, whole: Size, size: Size) -> Frame:
        least = tuple(side - 2 * self._pad for side in size)
        if whole[0] < least[0] or whole[1] < least[1]:
            raise BadExample(
                f"it is {whole[0]}x{whole[1]}; frame 'pad' with pad={self._pad} needs "
                f"{least[0]}x{least[1]} or more"
            )
        box = geometry.padded_box(u, *whole, size, self._pad)
        return Frame(whole, whole, box, size)


class Centre(Framing):
    """The centre: the image is resized until it just covers size / crop_pct, and cut.

    torchvision's Resize and CenterCrop, to the last bit.
    """

    numbers = 0

    def __init__(
        self,
        crop_pct: Portion = 1.0,  # share of a side that is seen
    ):
        self._crop_pct = crop_pct

    def __call__(self, u: np.ndarray, whole: Size, size: Size) -> Frame:
        covers = [int(side / self._crop_pct) for side in size]
        zoom = max(c / side for c, side in zip(covers, whole, strict=True))
        # The small addend undoes the rounding error of an exact fit.
        resized = tuple(int(side * zoom + 1e-6) for side in whole)
        return Frame(whole, resized, _centred(resized, size), size)


class Fit(Framing):
    """The whole image with its shape kept, and `fill` where it does not cover the view.

    Pillow's ImageOps.pad.
    """

    numbers = 0

    def __init__(self, align: str = "centre", fill: tuple = (0, 0, 0)):
        """Where the image lies and what is around it.

        Args:
          align: where the image lies in the view, "centre" or "top_left".
          fill: levels where it does not cover the view.
        """
        known = ("centre", "top_left")
        demand(
            "fit",
            {
                f"align of {' or '.join(known)}, not {align!r}": align in known,
                f"a fill of three levels, not {fill}": len(fill) == 3,
            },
        )
        self._centred, self._fill = align == "centre", tuple(fill)

    def __call__(self, u: np.ndarray, whole: Size, size: Size) -> Frame:
        if whole[1] / whole[0] > size[1] / size[0]:
            resized = max(1, round(whole[0] / whole[1] * size[1])), size[1]
        else:
            resized = size[0], max(1, round(whole[1] / whole[0] * size[0]))
        start = (0, 0)
        if self._centred:
            spare = zip(size, resized, strict=True)
            start = tuple(-round((s - r) * 0.5) for s, r in spare)
        return Frame(whole, resized, Box(*start, *size), size, fill=self._fill)


class Whole(Framing):
    """The whole image, squashed to size / crop_pct, of which the centre is seen.

    What BeitImageProcessor and ViTImageProcessor of transformers do.
    """

    numbers = 0

    def __init__(
        self,
        crop_pct: Portion = 1.0,  # share of a side that is seen
    ):
        self._crop_pct = crop_pct

    def __call__(self, u: np.ndarray, whole: Size, size: Size) -> Frame:
        resized = tuple(round(side / self._crop_pct) for side in size)
        return Frame(whole, resized, _centred(resized, size), size)


class Native(Framing):
    """The image as large as it is, at the top left of the view, and black beyond.

    One that does not fit into the view is shrunk until it does, as by `Fit`; its frame
    tells.
    """

    numbers = 0

    def __call__(self, u: np.ndarray, whole: Size, size: Size) -> Frame:
        if whole[0] > size[0] or whole[1] > size[1]:
            return Fit(align="top_left")(u, whole, size)
        return Frame(whole, whole, Box(0, 0, *size), size)


FRAMES: dict[str, type[Framing]] = {
    "random_resized": RandomResized,
    "square": Square,
    "pad": Pad,
    "scaled": Scaled,
    "centre": Centre,
    "fit": Fit,
    "whole": Whole,
    "native": Native,
}


def complete(section: Mapping[str, Any]) -> dict[str, Any]:
    """The section with all settings that it leaves to their defaults, as plain data.

    Raises:
      ValueError: no such frame.
    """
    lookup.lookup(FRAMES, section["name"], "beit_jax.data.frames")
    made = lookup.completed(section, lookup.Table(FRAMES))
    return {k: list(v) if isinstance(v, tuple) else v for k, v in made.items()}


def _centred(resized: Size, size: Size) -> Box:
    # torchvision's CenterCrop: the odd pixel goes by Python's round.
    start = [round((r - s) / 2) for r, s in zip(resized, size, strict=True)]
    return Box(*start, *size)
