"""What the label maps of a data set hold, added up map by map."""

import collections
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from beit_jax.data.ops import decode
from beit_jax.data.sources import Record
from beit_jax.data.sources.label_maps import IGNORED_LABEL, LabelMap

_SHOWN = 5  # maps that are named


class Held(NamedTuple):
    """Of one label map.

    Attributes:
      form: how it is stored, "PNG P" say.
      colours: whether a palette is what it means.
      counts: (256,) pixels of each class.
    """

    form: str
    colours: bool
    counts: np.ndarray


def look(record: Record, size: tuple[int, int]) -> Held:
    """What the label map of an image of that width and height holds.

    Raises:
      BadExample: it cannot be used.
    """
    stored = record.label_map
    counts = np.array(decode.to_labels(stored, size).histogram())
    data, meaning = stored if isinstance(stored, LabelMap) else (stored, None)
    image = decode.open_image(data) if isinstance(data, bytes) else None
    form = f"{image.format} {image.mode}" if image else "array"
    return Held(form, bool(meaning and meaning.palette), counts)


class MapSurvey:
    """Adds up what label maps hold."""

    def __init__(self):
        self._pixels, self._images = np.zeros((2, 256), np.int64)
        self._forms = collections.Counter()
        self._empty: list[str] = []  # names of images, all of which is ignored
        self._palettes = 0

    def add(self, name: str, held: Held) -> None:
        """The label map of the image of that name."""
        self._pixels += held.counts
        self._images += held.counts > 0
        self._forms[held.form] += 1
        self._palettes += held.form.endswith(" P") and not held.colours
        if not held.counts[:IGNORED_LABEL].any():
            self._empty.append(name)

    def report(self, class_names: Sequence[str]) -> dict[str, Any]:
        """What was found, as plain data; nothing where there was no map."""
        if not self._forms:
            return {}
        images, classes = self._forms.total(), self._pixels[: len(class_names)]
        shares = classes / max(classes.sum(), 1)
        ignored = self._pixels[IGNORED_LABEL] / self._pixels.sum()
        counts = self._images.tolist()
        return {
            "label_maps": dict(self._forms.most_common()),
            "images_per_class": dict(zip(class_names, counts, strict=False)),
            "share_of_pixels": {
                name: float(f"{share:.3g}")
                for name, share in zip(class_names, shares, strict=False)
            },
            "ignored_pixels": round(float(ignored), 4),
            "all_ignored": f"{len(self._empty)} of {images}",
        }

    def doubts(self) -> list[str]:
        """What may be so, but should be known."""
        doubts = []
        if self._empty:
            doubts.append(
                f"{len(self._empty)} label maps ignore every pixel: of their images "
                f"nothing is learnt or measured; see {'; '.join(self._empty[:_SHOWN])}"
            )
        if self._palettes:
            doubts.append(
                f"{self._palettes} label maps have a palette, and the numbers in it "
                "are taken for labels; are its colours meant, set labels.palette"
            )
        return doubts
