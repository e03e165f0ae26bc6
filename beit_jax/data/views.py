"""From a stored example to the arrays of a batch: views of training and evaluation.

Every random choice comes from uniforms that the caller drew for this very example, so
that a view is a pure function of (seed, counter).
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from beit_jax.data import annotations, augmentations
from beit_jax.data.annotations import ANNOTATIONS, Arrays, Wanted
from beit_jax.data.augmentations import AUGMENTATIONS
from beit_jax.data.frame import Frame
from beit_jax.data.framing import Framing
from beit_jax.data.ops import colour, decode, geometry
from beit_jax.data.ops.geometry import FILTERS, Size
from beit_jax.data.settings import Augment
from beit_jax.data.sources import Record

At = Callable[[Size], Frame]  # the frame of a view at a size


class Views:
    """Makes the arrays that an example spec asks for, of one example.

    Args:
      settings: of `data.augment`.
      spec: name -> shape and dtype; of image, token_image, and what ANNOTATIONS and
        AUGMENTATIONS make.
      framing: chooses the frames, see frames.py.
      training: whether views vary as the settings say; without, only their filters
        count.
      classes: C; labels must be in [0, C); 0: they are not looked at.
      max_pixels: images that claim more are refused.
      apply_exif: turn images as their EXIF orientation asks.
      dct_scaled: let JPEGs much larger than the view be decoded at 1/2, 1/4 or 1/8 of
        their size: faster, and a little smoother.
    """

    def __init__(
        self,
        settings: Augment,
        spec: Mapping[str, Any],
        framing: Framing,
        training: bool,
        classes: int = 0,
        max_pixels: int = decode.MAX_PIXELS,
        apply_exif: bool = False,
        dct_scaled: bool = False,
    ):
        _check_decoding(spec, apply_exif=apply_exif, dct_scaled=dct_scaled)
        self._settings, self._classes, self._framing = settings, classes, framing
        self._max_pixels, self._exif, self._dct = max_pixels, apply_exif, dct_scaled
        self._training = training
        self._shapes = {name: tuple(form.shape) for name, form in spec.items()}
        self._size = self._shapes["image"][:2]
        # Size and filter of each image of the view -> the arrays that it is for.
        self._names: dict[tuple[Size, Image.Resampling], list[str]] = {}
        for name, interpolation in (
            ("image", settings.interpolation),
            ("token_image", settings.token_interpolation),
        ):
            if name in spec:
                form = self._shapes[name][:2], FILTERS[interpolation]
                self._names.setdefault(form, []).append(name)
        # How many uniforms a view uses, and what for. Each purpose has a stream of its
        # own: what one is set to does not change the others' numbers.
        self.numbers = {"crop": framing.numbers}
        self._rows = {}
        if training:
            counts = augmentations.active(settings, self._shapes)
            self._rows = {name: AUGMENTATIONS[name] for name in counts}
            self.numbers |= {"flip": 1, **counts}
            if settings.rotate:
                _check_turning(spec)
                self.numbers["rotate"] = 1
        framing(self.middle["crop"], self._size, self._size)  # may raise ValueError

    @property
    def middle(self) -> dict[str, np.ndarray]:
        """Uniforms for a view that is not drawn: 0.5 each."""
        return {name: np.full(count, 0.5) for name, count in self.numbers.items()}

    @property
    def upright(self) -> bool:
        """Whether images are turned as their EXIF asks."""
        return self._exif

    def needs(self, field: str) -> bool:
        """Whether an annotation that is asked for needs that field of a record."""
        asked = annotations.asked(self._shapes)
        return any(field in ANNOTATIONS[name].fields for name in asked)

    def open(self, record: Record) -> Image.Image:
        """The image with its size known, perhaps not decoded yet."""
        image = decode.open_image(record.image, self._max_pixels)
        return decode.upright(image) if self._exif else image

    def make(
        self, record: Record, image: Image.Image, u: Mapping[str, np.ndarray]
    ) -> Arrays:
        """One view of `record`, whose image `open` gave.

        Args:
          u: name -> uniforms, as many as `numbers` says.
        """
        whole = image.height, image.width
        frame = self._framing(u["crop"], whole, self._size)
        if self._framing.by_labels:
            record = annotations.decoded(record, whole)
            frame = self._framing.choose(u["crop"], frame, record.label_map)
        if self._training and self._settings.flip and u["flip"][0] < 0.5:
            frame = frame._replace(flip=True)
        if "rotate" in u:
            turn = 2 * float(u["rotate"][0]) - 1
            frame = frame._replace(angle=self._settings.rotate * turn)
        at = functools.partial(self._at, frame)
        wanted = Wanted(at, self._size, self._shapes, self._classes)
        made = self._images(image, at, u) | annotations.make(record, wanted)
        for name, row in self._rows.items():
            if row.arrays.keys() & self._shapes.keys():
                made |= row.make(self._settings, u[name], self._size)
        return made

    def _at(self, frame: Frame, size: Size) -> Frame:
        """The frame of the same view at another size."""
        if size == frame.size:
            return frame
        if self._framing.numbers:  # what was drawn is seen at every size
            return frame._replace(size=size)
        return self._framing(np.empty(0), frame.whole, size)._replace(flip=frame.flip)

    def _images(
        self, image: Image.Image, at: At, u: Mapping[str, np.ndarray]
    ) -> Arrays:
        """The image in every form that the spec asks for."""
        ours = self._settings
        steps = []
        if ours.jitter_on != "device":  # whose steps are made for it, as arrays
            rows = {name: row for name, row in self._rows.items() if row.steps}
            steps = [step for n, row in rows.items() for step in row.steps(ours, u[n])]
        image = self._decoded(image, at(self._size))
        first = steps if ours.jitter_on == "image" else ()
        made = {}
        for names, view in self._cut(image, at, first):
            if ours.jitter_on == "view":
                view = colour.apply(view, steps)
            made |= dict.fromkeys(names, np.asarray(view))
            if "image" in names:
                for name, row in self._rows.items():
                    if row.pixels:
                        view = row.pixels(ours, u[name], view)
                        made["image"] = np.asarray(view)
        return made

    def _decoded(self, image: Image.Image, frame: Frame) -> Image.Image:
        """The RGB image, perhaps at a fraction of its size."""
        if self._dct:
            (height, width), box = frame.whole, frame.box
            down, across = frame.size[0] / box.height, frame.size[1] / box.width
            image.draft(None, (int(width * across), int(height * down)))
        return decode.to_rgb(image)

    def _cut(
        self, image: Image.Image, at: At, steps: Sequence[colour.Step]
    ) -> Iterator[tuple[list[str], Image.Image]]:
        """The image cut, resized and mirrored, and which arrays each view is for."""
        cheap = self._training and self._settings.token_view == "first_view"
        cuts, first = {}, None
        for (size, resample), names in self._names.items():
            frame = at(size).decoded_at((image.height, image.width))
            # Views of one cut share it; where the image is resized before, the filter
            # is part of the cut.
            key = frame.resized, frame.cut, frame.resized != frame.whole and resample
            if first is not None and cheap:
                cut = first
            elif key not in cuts:
                cut = cuts[key] = frame.cut_out(image, resample, steps)
            else:
                cut = cuts[key]
            view = geometry.resize(cut, size, resample)
            first = first or view
            yield names, frame.finish(view, resample)


def _check_turning(spec: Mapping[str, Any]) -> None:
    """Raises ValueError where boxes, or a way back, would not follow a turned view."""
    if lost := [name for name in ("boxes", "frame") if name in spec]:
        raise ValueError(
            f"data.augment.rotate is for images without {' or '.join(lost)}, which "
            "would not follow; set it to 0"
        )


def _check_decoding(
    spec: Mapping[str, Any], apply_exif: bool, dct_scaled: bool
) -> None:
    """Raises ValueError where annotations, or the one setting, rule out the other."""
    following = [n for n in annotations.asked(spec) if ANNOTATIONS[n].follows]
    for name, on in (("dct_scaled", dct_scaled), ("apply_exif", apply_exif)):
        if on and following:
            raise ValueError(
                f"data.{name} is for images without {' or '.join(following)}, which "
                "would not follow; leave it off"
            )
    if dct_scaled and apply_exif:
        raise ValueError("data.apply_exif decodes images whole: no data.dct_scaled")
