"""Handwritten digits laid over photographs: segmentation with no download."""

import functools

import numpy as np
from PIL import Image

from beit_jax.data.sources import digits, segment_classes
from beit_jax.data.sources.base import Info, Record, Source, digest
from beit_jax.data.sources.synthetic import uniforms
from beit_jax.ranges import Length, Seed

# Columns of both photographs, of 640, that a split sees: no pixel is in two.
_COLUMNS = {"train": slice(0, 400), "test": slice(416, 640)}
_APART = 2**40  # scenes
_OF_SCENE, _OF_DIGIT = 4, 7  # uniforms
_LEAST, _MOST = 1 / 6, 1 / 2  # side of a digit, as a share of the scene's


class DigitScenes(Source):
    """Scenes of up to `most` digits over a photograph: composited, with exact masks.

    Digits (UCI optdigits) and photographs (of a temple and a flower) are real and come
    inside scikit-learn; that the ones lie over the others is our doing. A pixel is a
    digit's where its ink is above half, and shows nothing of the photograph there. The
    splits share neither digits (see source `digits`) nor parts of the photographs.
    Example i is computed from (seed, i) when it is read. A mirrored digit is another
    shape: set augment.flip=False.
    """

    colours = segment_classes.made(11)

    def __init__(
        self,
        split: str = "train",
        size: Length = 96,
        num_examples: Length = 1024,
        most: Length = 5,
        seed: Seed = 0,
    ):
        """Loads digits and photographs.

        Args:
          split: "train" or "test".
          size: side of the scenes in pixels.
          num_examples: how many scenes.
          most: digits in a scene; there is at least one.
          seed: decides how scenes differ.
        """
        self._grey, self._numbers = digits.load(split)
        self._photographs = [one[:, _COLUMNS[split]] for one in _photographs()]
        self._size, self._most, self._seed = size, most, seed
        self._first = _APART * (split == "test")  # other places and colours, too
        names = ("background", *"0123456789")
        told = [f"{split}, seed {seed}, {most} digits in {size} px"]
        crc = digest(told, np.zeros(num_examples))
        self.info = Info(f"digit_scenes/{split}", num_examples, names, crc)

    def read(self, index: int) -> Record:
        numbers = _OF_SCENE + 1 + self._most * _OF_DIGIT
        drawn = uniforms(self._seed, self._first + index, numbers)
        image = self._ground(drawn[:_OF_SCENE])
        labels = np.zeros((self._size, self._size), np.uint8)
        count = 1 + int(drawn[_OF_SCENE] * self._most)
        each = np.reshape(drawn[_OF_SCENE + 1 :], (self._most, _OF_DIGIT))
        for u in each[:count].tolist():
            self._lay(image, labels, u)
        return Record(image, label_map=labels)

    def _ground(self, u: list[float]) -> np.ndarray:
        """A square of a photograph, (size, size, 3) uint8."""
        photograph = self._photographs[int(u[0] * len(self._photographs))]
        height, width = photograph.shape[:2]
        side = int(min(height, width) * (0.4 + 0.6 * u[1]))
        top, left = int(u[2] * (height - side + 1)), int(u[3] * (width - side + 1))
        part = Image.fromarray(photograph[top : top + side, left : left + side])
        return np.array(part.resize((self._size,) * 2, Image.Resampling.BICUBIC))

    def _lay(self, image: np.ndarray, labels: np.ndarray, u: list[float]) -> None:
        """A digit over what is there already."""
        number = int(u[0] * len(self._grey))
        side = max(1, int(self._size * (_LEAST + (_MOST - _LEAST) * u[1])))
        top, left = (int(v * (self._size - side + 1)) for v in u[2:4])
        ink = digits.enlarge(self._grey[number][None], side)[0, ..., :1] / 255
        inside = ink[..., 0] > 0.5
        place = slice(top, top + side), slice(left, left + side)
        colour = np.array(u[4:7]) * 255 * ink  # darker towards its edges
        image[place][inside] = colour[inside].astype(np.uint8)
        labels[place][inside] = 1 + self._numbers[number]

    def describe(self, index: int) -> str:
        return f"scene {index} of {self.info.name}"


@functools.cache
def _photographs() -> list[np.ndarray]:
    """scikit-learn's two, (427, 640, 3) uint8."""
    from sklearn.datasets import load_sample_images  # 1 s to import: only when used

    return load_sample_images().images
