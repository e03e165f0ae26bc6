"""Where a view lies in its image, and how images and annotations get there and back.

Sizes are (height, width); boxes top, left, height, width; objects' boxes top, left,
bottom, right; points row, column. All in pixels, of which number i covers [i, i + 1).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from beit_jax.data.ops import colour, geometry
from beit_jax.data.ops.geometry import Box, Size
from beit_jax.data.sources.label_maps import IGNORED_LABEL as IGNORED_LABEL

NEAREST = Image.Resampling.NEAREST
_HUGE = 2**26  # pixels that no resized image should have


class Frame(NamedTuple):
    """A view's place in its image.

    The image is resized, a box is cut out of it, that is resized to the view's size
    and perhaps mirrored. Most frames do one of the two resizes, and pixels depend on
    which: a random resized crop cuts first, a centre crop resizes first.
    """

    whole: Size  # of the image
    resized: Size  # of the image when it is cut; the same as `whole`: it is cut first
    cut: Box  # of the resized image; it may reach beyond
    size: Size  # of the view
    flip: bool = False
    fill: tuple[int, ...] = (0, 0, 0)  # the colour beyond the image

    @property
    def numbers(self) -> np.ndarray:
        """(11,) int32: all of it but the colour, so that a batch may carry it."""
        numbers = *self.whole, *self.resized, *self.cut, *self.size, self.flip
        return np.array(numbers, np.int32)

    @classmethod
    def of_numbers(cls, numbers: np.ndarray) -> "Frame":
        """What `numbers` tells."""
        n = [int(number) for number in numbers]
        whole, resized, cut, size = n[:2], n[2:4], Box(*n[4:8]), n[8:10]
        return cls(tuple(whole), tuple(resized), cut, tuple(size), bool(n[10]))

    @property
    def box(self) -> Box:
        """The part of the image that the view shows, in fractions of its pixels."""
        down, across = (w / r for w, r in zip(self.whole, self.resized, strict=True))
        top, left, height, width = self.cut
        return Box(top * down, left * across, height * down, width * across)

    def decoded_at(self, size: Size) -> "Frame":
        """The same view of the image, should that be decoded at another size."""
        if size == self.whole:
            return self
        if self.resized != self.whole:
            return self._replace(whole=size)
        zoom = np.array(size) / self.whole
        start = np.round(zoom * self.cut[:2]).astype(int)
        stop = np.round(zoom * (np.array(self.cut[:2]) + self.cut[2:])).astype(int)
        cut = Box(*start.tolist(), *np.maximum(stop - start, 1).tolist())
        return self._replace(whole=size, resized=size, cut=cut)

    def image(
        self,
        image: Image.Image,
        resample: Image.Resampling,
        steps: Sequence[colour.Step] = (),
    ) -> Image.Image:
        """The view of an RGB image.

        Args:
          steps: of colour, done to the whole image; not to what is beyond.
        """
        return self.finish(self.cut_out(image, resample, steps), resample)

    def cut_out(
        self,
        image: Image.Image,
        resample: Image.Resampling,
        steps: Sequence[colour.Step] = (),
    ) -> Image.Image:
        """The first half of `image`, which views of several sizes may share."""
        cut_first = self.resized == self.whole
        if steps and cut_first and geometry.lies_in(self.cut, self.whole):
            return colour.apply_then_crop(image, steps, self.cut)
        return self._cut(colour.apply(image, steps), resample, self.fill)

    def finish(self, cut: Image.Image, resample: Image.Resampling) -> Image.Image:
        """The second half of `image`: resizes and mirrors."""
        view = geometry.resize(cut, self.size, resample)
        return ImageOps.mirror(view) if self.flip else view

    def labels(self, labels: Image.Image, outside: int = IGNORED_LABEL) -> np.ndarray:
        """The view (h, w) uint8 of a label map, by the nearest pixel.

        Args:
          labels: of mode "L", as large as the image.
          outside: the label beyond the image.
        """
        return np.asarray(self.finish(self._cut(labels, NEAREST, outside), NEAREST))

    def masks(self, masks: np.ndarray) -> np.ndarray:
        """The views (M, h, w) uint8 of masks (M, H, W) uint8; 0 beyond the image."""
        made = [self.labels(Image.fromarray(mask), outside=0) for mask in masks]
        return np.array(made, np.uint8).reshape(-1, *self.size)

    def boxes(self, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Objects' boxes (M, 4) in the view.

        Returns:
          The boxes (M, 4) float32, clipped to the view; (M,) bool, whether any of it is
          left to see.
        """
        top, left, height, width = self.box
        zoom = np.tile([self.size[0] / height, self.size[1] / width], 2)
        moved = (boxes - np.tile([top, left], 2)) * zoom
        if self.flip:
            moved[:, [1, 3]] = self.size[1] - moved[:, [3, 1]]
        moved = np.clip(moved, 0, np.tile(self.size, 2)).astype(np.float32)
        return moved, (moved[:, 2] > moved[:, 0]) & (moved[:, 3] > moved[:, 1])

    def back_points(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 2) of the view -> where they are in the image, float64."""
        top, left, height, width = self.box
        rows, columns = np.moveaxis(np.asarray(points, np.float64), -1, 0)
        columns = self.size[1] - columns if self.flip else columns
        rows = top + rows * height / self.size[0]
        return np.stack([rows, left + columns * width / self.size[1]], -1)

    def back_grid(self) -> np.ndarray:
        """(4,) float64: top, left, bottom, right of the view in the image.

        The view may reach beyond. A mirrored view's left is the larger number: columns
        of the view run from there.
        """
        corners = np.array([(0, 0), self.size])
        return self.back_points(corners).ravel()

    def back_boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (M, 4) of the view -> in the image and clipped to it, float64."""
        ends = self.back_points(np.reshape(boxes, (-1, 2, 2)))
        ends = np.clip(ends, 0, self.whole)
        if self.flip:
            ends[:, :, 1] = ends[:, ::-1, 1]
        return ends.reshape(-1, 4)

    def back(self, values: np.ndarray, outside: float = 0) -> np.ndarray:
        """A map of the view -> the map (H, W, ...) of the image, of the same dtype.

        Args:
          values: (h, w, ...), which may be coarser than the view, a value a patch say.
            Integers and bools are taken from the nearest place, floats interpolated
            linearly.
          outside: the value where the view does not show the image.
        """
        values = values[:, ::-1] if self.flip else values
        top, left, height, width = self.box
        rows = _places(self.whole[0], top, height, values.shape[0])
        columns = _places(self.whole[1], left, width, values.shape[1])
        interpolate = np.issubdtype(values.dtype, np.floating)
        take = _linear if interpolate else _nearest
        made = take(np.swapaxes(take(values, rows), 0, 1), columns).swapaxes(0, 1)
        inside = (rows >= 0) & (rows < values.shape[0])
        beside = (columns < 0) | (columns >= values.shape[1])
        made[~inside] = outside
        made[:, beside] = outside
        return made

    def _cut(
        self, image: Image.Image, resample: Image.Resampling, beyond
    ) -> Image.Image:
        """The part of the resized image.

        Only an image so thin that the resized one would be huge is cut and resized in
        one go, which can differ by one level.
        """
        pixels = self.resized[0] * self.resized[1]
        huge = self.resized != self.whole and pixels > _HUGE
        if huge and geometry.lies_in(self.cut, self.resized):
            size, box = (self.cut.width, self.cut.height), geometry.corners(self.box)
            return image.resize(size, resample, box=box)
        image = geometry.resize(image, self.resized, resample)
        return geometry.crop(image, self.cut, beyond)


def _places(length: int, start: float, extent: float, count: int) -> np.ndarray:
    """Where the centres of an image's pixels lie among `count` values, (length,)."""
    return (np.arange(length) + 0.5 - start) / extent * count


def _nearest(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    return values[np.clip(places.astype(int), 0, len(values) - 1)]


def _linear(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Between the centres of the values; the outermost one beyond those."""
    places = np.clip(places - 0.5, 0, len(values) - 1)
    first = np.minimum(places.astype(int), max(len(values) - 2, 0))
    second = np.minimum(first + 1, len(values) - 1)
    share = (places - first).astype(values.dtype)
    share = share.reshape(-1, *[1] * (values.ndim - 1))
    return values[first] * (1 - share) + values[second] * share
