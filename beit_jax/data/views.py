"""From a stored example to the arrays of a batch: views of training and evaluation.

Every random choice comes from uniforms that the caller drew for this very example, so
that a view is a pure function of (seed, counter).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from beit_jax.data.ops import colour, decode, erasing, geometry, mixing, randaugment
from beit_jax.data.ops.geometry import FILTERS, NEAREST, Box
from beit_jax.data.settings import Augment
from beit_jax.data.sources import BadExample, Record

Arrays = dict[str, np.ndarray]


class Views:
    """Makes the arrays that an example spec asks for, of one example.

    Args:
      settings: of `data.augment`.
      spec: name -> shape and dtype; of image, token_image, label, labels_2d, boxes
        with classes and valid, jitter, erase with erase_seed, mix.
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
        classes: int = 0,
        max_pixels: int = decode.MAX_PIXELS,
        apply_exif: bool = False,
        dct_scaled: bool = False,
    ):
        for name, on in (("dct_scaled", dct_scaled), ("apply_exif", apply_exif)):
            if on and {"labels_2d", "boxes"} & spec.keys():
                raise ValueError(
                    f"data.{name} is for images without labels_2d or boxes, which "
                    "would not follow; leave it off"
                )
        if dct_scaled and apply_exif:
            raise ValueError("data.apply_exif decodes images whole: no data.dct_scaled")
        self._settings, self._classes = settings, classes
        self._max_pixels, self._exif, self._dct = max_pixels, apply_exif, dct_scaled
        self._shapes = {name: tuple(form.shape) for name, form in spec.items()}
        self._size = self._shapes["image"][:2]
        if settings.crop == "square" and self._size[0] != self._size[1]:
            raise ValueError(
                f"data.augment.crop='square' gives square views, not {self._size[0]}x"
                f"{self._size[1]}; use 'random_resized'"
            )
        self._forms = {
            name: (self._shapes[name][:2], FILTERS[interpolation])
            for name, interpolation in (
                ("image", settings.interpolation),
                ("token_image", settings.token_interpolation),
            )
            if name in spec
        }
        self._policy = None
        # How many uniforms a training view uses, and what for. Each purpose has a
        # stream of its own: what one is set to does not change the others' numbers.
        self.numbers = {"crop": geometry.BOX_NUMBERS, "flip": 1}
        if settings.jitter:
            self.numbers["jitter"] = colour.NUMBERS
        if settings.randaugment:
            self._policy = randaugment.Policy.parse(settings.randaugment)
            self.numbers["randaugment"] = self._policy.layers * randaugment.NUMBERS
        if "erase" in spec:
            self.numbers["erase"] = erasing.NUMBERS
        if "mix" in spec:
            self.numbers["mix"] = mixing.NUMBERS  # the same for a whole batch

    def open(self, record: Record) -> Image.Image:
        """The image with its size known, perhaps not decoded yet."""
        image = decode.open_image(record.image, self._max_pixels)
        return decode.upright(image) if self._exif else image

    def train(
        self, record: Record, image: Image.Image, u: Mapping[str, np.ndarray]
    ) -> Arrays:
        """One random view of `record`, whose image `open` gave.

        Args:
          u: name -> uniforms, as many as `numbers` says.
        """
        ours, whole = self._settings, image.size
        box, flip = self._box(whole, u["crop"]), bool(ours.flip and u["flip"][0] < 0.5)
        steps = colour.jitter_steps(ours.jitter, u["jitter"]) if ours.jitter else []
        image, scaled_box = self._decode(image, box)
        first = steps if ours.jitter_on == "image" else []
        if ours.crop == "pad":  # what is beyond the image stays black
            cut = geometry.crop(colour.apply(image, first), scaled_box)
        else:
            cut = colour.apply_then_crop(image, first, scaled_box)
        made = {}
        for names, view in self._resized(cut):
            view = _mirrored(view, flip)
            if ours.jitter_on == "view":
                view = colour.apply(view, steps)
            made |= dict.fromkeys(names, np.asarray(view))
            if self._policy and "image" in names:
                rows = u["randaugment"].reshape(self._policy.layers, -1)
                view = randaugment.apply(view, self._policy, rows, ours.fill)
                made["image"] = np.asarray(view)
        annotations = self._annotations(
            record,
            whole,
            lambda labels, size: _mirrored(
                geometry.cut_labels(labels, box, size), flip
            ),
            lambda boxes, size: geometry.move_boxes(boxes, box, size, flip),
        )
        return made | annotations | self._for_the_device(steps, u)

    def eval(self, record: Record, image: Image.Image) -> Arrays:
        """The centre crop of `record`, whose image `open` gave."""
        whole, crop_pct = image.size, self._settings.crop_pct
        image = decode.to_rgb(image)
        made = {
            name: np.asarray(geometry.centre_cut(image, size, resample, crop_pct))
            for name, (size, resample) in self._forms.items()
        }
        return made | self._annotations(
            record,
            whole,
            lambda labels, size: geometry.centre_cut(labels, size, NEAREST, crop_pct),
            lambda boxes, size: geometry.move_boxes(
                boxes, geometry.centre_box(whole, size, crop_pct), size, flip=False
            ),
        )

    def _box(self, whole: tuple[int, int], u: np.ndarray) -> Box:
        """Where a random view lies in an image of that width and height."""
        ours, (width, height) = self._settings, whole
        if ours.crop == "pad":
            least = tuple(side - 2 * ours.pad for side in self._size)
            if height < least[0] or width < least[1]:
                raise BadExample(
                    f"it is {height}x{width}; data.augment.crop='pad' needs "
                    f"{least[0]}x{least[1]} or more"
                )
            return geometry.padded_box(u, height, width, self._size, ours.pad)
        if ours.crop == "square":
            return geometry.square_box(u, height, width, self._size[0])
        scale = (ours.min_scale, ours.max_scale)
        return geometry.random_box(
            u, height, width, scale, (ours.min_ratio, ours.max_ratio)
        )

    def _decode(self, image: Image.Image, box: Box) -> tuple[Image.Image, Box]:
        """The RGB image, perhaps at a fraction of its size, and the box in it."""
        width, height = image.size
        if self._dct:
            down, across = self._size[0] / box.height, self._size[1] / box.width
            image.draft(None, (int(width * across), int(height * down)))
        if image.size == (width, height):
            return decode.to_rgb(image), box
        zoom = np.array([image.height / height, image.width / width])
        start = np.round(zoom * box[:2]).astype(int)
        stop = np.round(zoom * (np.array(box[:2]) + box[2:])).astype(int)
        return decode.to_rgb(image), Box(*start, *np.maximum(stop - start, 1))

    def _resized(self, view: Image.Image) -> list[tuple[list[str], Image.Image]]:
        """The crop in every form that the spec asks for, and which arrays it is for."""
        made: dict[tuple, Image.Image] = {}
        names: dict[tuple, list[str]] = {}
        for name, form in self._forms.items():
            if form not in made:
                if made and self._settings.token_view == "first_view":
                    view = made[self._forms["image"]]
                made[form] = geometry.resize(view, *form)
            names.setdefault(form, []).append(name)
        return [(names[form], made[form]) for form in made]

    def _for_the_device(self, steps, u: Mapping[str, np.ndarray]) -> Arrays:
        """What the compiled step needs to augment further."""
        ours, made = self._settings, {}
        if "jitter" in self._shapes:
            made["jitter"] = colour.pack(steps)
        if "erase" in self._shapes:
            box = erasing.erase_box(u["erase"], *self._size, ours.erase)
            made["erase"] = np.array(box, np.int32)
            made["erase_seed"] = erasing.erase_seed(u["erase"])
        if "mix" in self._shapes:
            made["mix"] = mixing.mix_parameters(
                u["mix"], self._size, ours.mixup, ours.cutmix
            )
        return made

    def _annotations(self, record: Record, whole, move_labels, move_boxes) -> Arrays:
        """Label, label map and boxes, in the geometry of the view."""
        shapes, made = self._shapes, {}
        if "label" in shapes:
            if record.label is None:
                raise BadExample("it has no label, and the task needs one")
            if self._classes and not 0 <= record.label < self._classes:
                raise BadExample(
                    f"its label is {record.label}; labels must be in 0 .. "
                    f"{self._classes - 1}"
                )
            made["label"] = np.int32(record.label)
        if "labels_2d" in shapes:
            if record.label_map is None:
                raise BadExample("it has no label map, and the task needs one")
            labels = decode.to_labels(record.label_map, whole)
            labels = move_labels(labels, shapes["labels_2d"][:2])
            made["labels_2d"] = np.asarray(labels, np.int32)
        if "boxes" in shapes:
            made |= self._objects(record, whole, move_boxes)
        return made

    def _objects(self, record: Record, whole, move_boxes) -> Arrays:
        """boxes, classes and valid, with as many places as the spec says."""
        if record.boxes is None or record.classes is None:
            raise BadExample("it has no boxes with classes, and the task needs them")
        geometry.check_boxes(record.boxes, whole)
        boxes, visible = move_boxes(record.boxes, self._size)
        places, count = self._shapes["boxes"][0], int(visible.sum())
        if count > places:
            raise BadExample(f"it has {count} objects; the task has room for {places}")
        made = {
            "boxes": np.zeros((places, 4), np.float32),
            "classes": np.zeros(places, np.int32),
            "valid": np.arange(places) < count,
        }
        made["boxes"][:count] = boxes[visible]
        made["classes"][:count] = record.classes[visible]
        return made


def _mirrored(image: Image.Image, flip: bool) -> Image.Image:
    return ImageOps.mirror(image) if flip else image
