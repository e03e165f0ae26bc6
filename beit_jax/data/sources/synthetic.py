"""Drawn images with learnable classes, for tests and for measuring speed."""

import math

import tensorflow as tf

from beit_jax.data import draws
from beit_jax.data.sources.base import Info


class Synthetic:
    """Coloured gratings: the class sets stripe direction and colour.

    Phase, stripe width and brightness differ from image to image. Example i is
    computed from (seed, i) when it is read, and its class is i % num_classes.
    """

    stacked = True

    def __init__(
        self,
        num_examples: int = 64,
        num_classes: int = 4,
        size: int = 32,
        seed: int = 0,
    ):
        if min(num_examples, num_classes, size) < 1:
            raise ValueError(
                f"num_examples={num_examples}, num_classes={num_classes} and "
                f"size={size} must all be at least 1"
            )
        names = tuple(f"grating_{label}" for label in range(num_classes))
        self.info = Info("synthetic", num_examples, names)
        self._size = size
        self._seed = seed

    def read(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        classes = len(self.info.class_names)
        label = tf.cast(index % classes, tf.int32)
        u = tf.cast(draws.stream(self._seed, "synthetic", index)(0, 3), tf.float32)
        turn = tf.cast(label, tf.float32)[..., None, None] / classes
        phase, cycles = u[..., 0, None, None], 2 + 2 * u[..., 1, None, None]
        place = tf.linspace(-0.5, 0.5, self._size)
        along = place * tf.cos(math.pi * turn) + place[:, None] * tf.sin(math.pi * turn)
        wave = tf.cos(2 * math.pi * (cycles * along + phase))[..., None]
        hue = turn[..., None] + tf.range(3, dtype=tf.float32) / 3
        colour = 0.5 + 0.5 * tf.cos(2 * math.pi * hue)
        light = 0.6 + 0.4 * u[..., 2, None, None, None]
        image = 255 * light * colour * (0.6 + 0.4 * wave)
        return {"image": tf.cast(tf.round(image), tf.uint8), "label": label}

    def describe(self, index: int) -> str:
        return f"image {index} of synthetic"
