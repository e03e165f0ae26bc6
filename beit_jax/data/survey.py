"""What the examples of a data set are like, looked at one by one."""

import collections
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from beit_jax.data import likeness, map_survey, sources
from beit_jax.data.ops import decode
from beit_jax.data.views import Views

_WINDOW = 1024  # examples that are looked at before their findings are added up
_DIM = 64  # levels that 14 bits in 16 reach
_ALIKE = 5  # pairs that look alike and are named


class Survey:
    """Looks at examples as a run would, and adds up what they are like."""

    def __init__(self, source: sources.Source, views: Views):
        self.source, self._views = source, views
        self.bad: dict[int, str] = {}  # index -> what is wrong with it
        self.looked_at = self.turned = self.dim = 0
        self._labels, self._forms = collections.Counter(), collections.Counter()
        self._sizes: list[tuple[int, int]] = []  # width, height
        self._histogram = np.zeros((3, 256), np.int64)
        self._maps = map_survey.MapSurvey()
        # Source ("" is ours), name of the example, how its image looks.
        self._looks: list[tuple[str, str, likeness.Look]] = []

    def walk(self, limit: int) -> Iterator[int]:
        """Looks at the first `limit` examples (0: all); yields each one's index."""
        for index, found in _each(self.source, self._look, limit):
            self._add(index, found)
            yield index

    def compare(self, other: sources.Source, limit: int) -> None:
        """Looks for the first `limit` images of `other` among ours, and ours in it."""
        for index, seen in _each(other, lambda i: self._look_of(other, i), limit):
            if seen is not None:
                self._looks.append(("other", other.describe(index), seen))

    def _look_of(self, source: sources.Source, index: int) -> likeness.Look | None:
        try:
            return likeness.of(decode.to_rgb(self._views.open(source.read(index))))
        except sources.BadExample:
            return None  # told where that source is looked at

    def _look(self, index: int):
        """What one example is like, or what is wrong with it."""
        try:
            record = self.source.read(index)
            image = self._views.open(record)
            # Turned upright, it tells no more of how it is stored.
            stored = image if image.format else decode.open_image(record.image, np.inf)
            form, size = f"{stored.format or 'array'} {stored.mode}", stored.size
            deep = decode.has_16_bits(stored)
            pixels = decode.to_rgb(image)
            self._views.make(record, pixels, self._views.middle)
            held = None
            if self._views.needs("label_map"):
                held = map_survey.look(record, pixels.size)
        except sources.BadExample as error:
            return str(error)
        turned = False
        with contextlib.suppress(sources.BadExample):  # a run did not ask, or above
            turned = decode.orientation(stored) != 1
        histogram = np.array(pixels.histogram()).reshape(3, 256)
        dim = deep and not histogram[:, _DIM:].any()
        alike = likeness.of(pixels)
        return record.label, form, size, turned, dim, histogram, alike, held

    def _add(self, index: int, found) -> None:
        self.looked_at += 1
        if isinstance(found, str):
            self.bad[index] = found
            return
        label, form, size, turned, dim, histogram, alike, held = found
        self._labels[label] += 1
        self._forms[form] += 1
        self._sizes.append(size)
        self.turned += turned
        self.dim += dim
        self._histogram += histogram
        self._looks.append(("", self.source.describe(index), alike))
        if held is not None:
            self._maps.add(self.source.describe(index), held)

    def report(self, seconds: float) -> dict[str, Any]:
        """Everything that was found, as plain data."""
        info, describe = self.source.info, self.source.describe
        alike = self._alike()
        levels = np.arange(256) / 255
        pixels = np.maximum(self._histogram.sum(1), 1)
        mean = self._histogram @ levels / pixels
        deviation = np.sqrt(self._histogram @ levels**2 / pixels - mean**2)
        return {
            "name": info.name,
            "examples": info.num_examples,
            "looked_at": self.looked_at,
            "digest": f"{info.digest:08x}",
            "notes": [
                *self.source.notes,
                *self._doubts(),
                *self._maps.doubts(),
                *_told(alike),
            ],
            "bad": {describe(index): problem for index, problem in self.bad.items()},
            "images_per_class": {
                name: self._labels[label] for label, name in enumerate(info.class_names)
            },
            **self._maps.report(info.class_names),
            "formats": dict(self._forms.most_common()),
            "exif_turned": self.turned,
            "look_alike": len(alike),
            "width": _spread([width for width, _ in self._sizes]),
            "height": _spread([height for _, height in self._sizes]),
            "mean": mean.round(4).tolist(),
            "std": deviation.round(4).tolist(),
            "examples_per_second": round(self.looked_at / seconds, 1),
        }

    def _doubts(self) -> list[str]:
        """What may be so, but should be known."""
        doubts = []
        if self.turned and not self._views.upright:
            doubts.append(
                f"{self.turned} images are to be shown turned, as their EXIF says, and "
                "are taken as they are stored: lying, perhaps; data.apply_exif=True "
                "(--config.data.apply_exif=True) turns them upright"
            )
        if self.dim:
            doubts.append(
                f"{self.dim} images are stored with 16 bits and have no level above "
                f"{_DIM - 1} of 255 once the upper 8 are taken: are theirs numbers of "
                "12 bits, say, scale them to 16"
            )
        return doubts

    def _alike(self) -> list[tuple[tuple[str, str], tuple[str, str]]]:
        """Pairs of images that look alike: the source and the name of each."""
        looks = np.array([seen for _, _, seen in self._looks], np.uint8)
        names = [(source, name) for source, name, _ in self._looks]
        return [(names[i], names[j]) for i, j in likeness.pairs(looks)]


def _each(
    source: sources.Source, look: Callable[[int], Any], limit: int
) -> Iterator[tuple[int, Any]]:
    """What `look` finds of the first `limit` examples (0: all), many at once."""
    count = source.info.num_examples
    count = min(limit, count) if limit else count
    with ThreadPoolExecutor() as threads:
        for first in range(0, count, _WINDOW):
            window = range(first, min(first + _WINDOW, count))
            yield from zip(window, threads.map(look, window), strict=True)


def _told(alike: Sequence[tuple[tuple[str, str], ...]]) -> list[str]:
    """A sentence on images that look alike, where there are any."""
    if not alike:
        return []
    apart = [pair for pair in alike if len({_place(*one) for one in pair}) > 1]
    shown = [" and ".join(name for _, name in pair) for pair in [*apart, *alike]]
    return [
        f"{len(alike)} pairs of images look alike (copies, or nearly so), "
        f"{len(apart)} of them in two folders or sources: what is trained on should "
        "not be in a test, nor in two classes; see "
        f"{'; '.join([*dict.fromkeys(shown)][:_ALIKE])}"
    ]


def _place(source: str, name: str) -> tuple[str, str]:
    return source, os.path.dirname(name)


def _spread(sides: list[int]) -> dict[str, float]:
    if not sides:
        return {}
    names = ("least", "median", "most")
    return dict(zip(names, np.percentile(sides, (0, 50, 100)).tolist(), strict=True))
