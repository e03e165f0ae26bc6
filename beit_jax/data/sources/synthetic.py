"""Drawn images with learnable classes, for tests and for measuring speed."""

import numpy as np

from beit_jax.data.sources.base import Info, Record, Source, digest
from beit_jax.ranges import Length, Seed

NUMBERS = ("phase", "width", "light")  # that are drawn for each image, in [0, 1)


class Synthetic(Source):
    """Coloured gratings: the class sets stripe direction and colour.

    Phase, stripe width and brightness differ from image to image. Example i is
    computed from (seed, i) when it is read, and its class is i % num_classes. Its label
    map has that in the bright half of each stripe and 0 in the dark one.
    """

    def __init__(
        self,
        num_examples: Length = 64,
        num_classes: Length = 4,
        size: Length = 32,
        seed: Seed = 0,
        targets: tuple = (),
    ):
        """Draws nothing yet.

        Args:
          num_examples: how many images.
          num_classes: how many kinds of grating.
          size: side of the images in pixels.
          seed: decides how images of a class differ.
          targets: any of NUMBERS, what a regression is to tell.
        """
        if not set(targets) <= set(NUMBERS):
            raise ValueError(f"targets={targets} must be some of {NUMBERS}")
        self.targets = tuple(targets)
        names = tuple(f"grating_{label}" for label in range(num_classes))
        labels = np.arange(num_examples) % num_classes
        self.info = Info(
            "synthetic", num_examples, names, digest([f"seed {seed}"], labels)
        )
        self._seed = seed
        self._place = np.linspace(-0.5, 0.5, size, dtype=np.float32)

    def read(self, index: int) -> Record:
        label = index % len(self.info.class_names)
        turn = label / len(self.info.class_names)
        drawn = uniforms(self._seed, index, 3)
        phase, width, light = drawn
        across, down = np.cos(np.pi * turn), np.sin(np.pi * turn)
        along = self._place * across + self._place[:, None] * down
        wave = np.cos(2 * np.pi * ((2 + 2 * width) * along + phase))
        colour = 0.5 + 0.5 * np.cos(2 * np.pi * (turn + np.arange(3) / 3))
        brightest = 255 * (0.6 + 0.4 * light) * colour.astype(np.float32)
        image = np.rint((0.6 + 0.4 * wave)[..., None] * brightest).astype(np.uint8)
        stripes = np.where(wave > 0, label, 0)
        return Record(image, label, stripes, more=self._told(drawn))

    def _told(self, drawn: list[float]) -> dict[str, np.ndarray]:
        if not self.targets:
            return {}
        told = dict(zip(NUMBERS, drawn, strict=True))
        numbers = [told[name] for name in self.targets]
        return {"numbers": np.array(numbers, np.float32)}

    def describe(self, index: int) -> str:
        return f"image {index} of synthetic"


def uniforms(seed: int, index: int, count: int) -> list[float]:
    """Numbers in [0, 1) of an example, a pure function of (seed, index)."""
    # Philox's raw numbers: numpy promises them, unlike those of Generator's methods.
    key = np.array([seed % 2**64, index], np.uint64)
    raw = np.random.Philox(key=key).random_raw(count)
    return ((raw >> np.uint64(11)) * 2.0**-53).tolist()
