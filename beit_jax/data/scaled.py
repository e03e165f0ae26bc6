"""Views of an image at a random scale, as segmenters and detectors are trained."""

import numpy as np
from PIL import Image

from beit_jax.data.frame import IGNORED_LABEL, NEAREST, Frame
from beit_jax.data.framing import Framing, demand
from beit_jax.data.ops import geometry
from beit_jax.data.ops.geometry import Box, Size
from beit_jax.ranges import Count, Portion, Positive

_REDRAWS = 10  # of a part whose labels do not do


class Scaled(Framing):
    """The image at a random scale, its shape kept, of which a random part is seen.

    At scale 1 the long side is `long` pixels or the short one `short`, whichever comes
    first; what is then smaller than the view lies at its top left. mmsegmentation's
    Resize with `ratio_range` and RandomCrop is long=2048, short=512, scales 0.5 to 2;
    detectron2's large-scale jitter is both 0, scales 0.1 to 2. We round the resized
    side alone, not the scaled `long` and `short` before it, and draw an offset an axis.
    Label maps are resized by the nearest pixel between the centres, as Pillow resizes
    the image; OpenCV takes the nearest of the corners, up to half a pixel beside it.
    """

    def __init__(
        self,
        min_scale: Positive = 0.5,  # lowest scale
        max_scale: Positive = 2.0,  # highest scale
        long: Count = 0,  # side at scale 1 in pixels; 0: of the view
        short: Count = 0,  # the same
        fill: tuple = (0, 0, 0),  # levels where the image does not cover the view
        # Share of a view's labels below which each class must be; else the part is
        # drawn again, up to 10 times. 1: whatever the labels are.
        cat_max_ratio: Portion = 1.0,
    ):
        demand(
            "scaled",
            {
                f"0 < min_scale <= max_scale, not {min_scale}, {max_scale}": (
                    0 < min_scale <= max_scale
                ),
                f"a fill of three levels, not {fill}": len(fill) == 3,
            },
        )
        self._scale, self._sides = (min_scale, max_scale), (long, short)
        self._fill, self._most = tuple(fill), cat_max_ratio
        self.by_labels = cat_max_ratio < 1
        self.numbers = 1 + 2 * (1 + _REDRAWS * self.by_labels)

    def __call__(self, u: np.ndarray, whole: Size, size: Size) -> Frame:
        low, high = self._scale
        scale = low + (high - low) * u[0]
        long, short = self._sides[0] or max(size), self._sides[1] or min(size)
        zoom = scale * min(long / max(whole), short / min(whole))
        resized = tuple(max(1, int(side * zoom + 0.5)) for side in whole)
        cut = _placed(u[1:3], resized, size)
        return Frame(whole, resized, cut, size, fill=self._fill)

    def choose(self, u: np.ndarray, frame: Frame, labels: np.ndarray) -> Frame:
        """The first part of several classes, none too large; else the last one.

        mmsegmentation's RandomCrop: 255 does not count, the last is not looked at.
        """
        whole = Image.fromarray(labels)
        seen = np.asarray(geometry.resize(whole, frame.resized, NEAREST))
        draws = np.reshape(u[1:], (-1, 2))
        cuts = [_placed(draw, frame.resized, frame.size) for draw in draws]
        fine = (cut for cut in cuts[:-1] if self._is_varied(seen, cut))
        return frame._replace(cut=next(fine, cuts[-1]))

    def _is_varied(self, labels: np.ndarray, cut: Box) -> bool:
        part = labels[cut.top : cut.top + cut.height, cut.left : cut.left + cut.width]
        counts = np.bincount(part.ravel(), minlength=256)[:IGNORED_LABEL]
        several = np.count_nonzero(counts) > 1
        return several and counts.max() / counts.sum() < self._most


def _placed(u: np.ndarray, resized: Size, size: Size) -> Box:
    """A random box of the view's size; at the top left where the image is smaller."""
    spare = [max(0, r - s) for r, s in zip(resized, size, strict=True)]
    start = [int(v * (n + 1)) for v, n in zip(u, spare, strict=True)]
    return Box(*start, *size)
