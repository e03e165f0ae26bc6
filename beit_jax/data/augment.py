"""Crops and flips. Every function takes one image or a stack of equally large ones.

Shapes are written `(..., H, W, 3)`: `...` is nothing for one image, B for a stack.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from beit_jax.data.draws import Draw
from beit_jax.tables import nearest

_TRIES = 10  # random boxes drawn before the centre is taken
_WEIGHT_UNIT = 2.0**-15


class Crop(NamedTuple):
    """Settings: random crop and flip in training, centre crop in evaluation."""

    min_scale: float = 0.08  # of the image's area
    max_scale: float = 1.0
    min_ratio: float = 3 / 4  # width / height
    max_ratio: float = 4 / 3
    flip: bool = True
    eval_scale: float = 1.0  # of the short side; 224 / 256 is usual for photographs

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Crop":
        """Raises ValueError for an unknown setting or limits in the wrong order."""
        for key in config:
            if key not in cls._fields:
                raise ValueError(
                    f"data.augment has no setting {key!r}{nearest(key, cls._fields)}"
                )
        crop = cls(**config)
        if not (
            0 < crop.min_scale <= crop.max_scale <= 1
            and 0 < crop.min_ratio <= crop.max_ratio
            and 0 < crop.eval_scale <= 1
        ):
            raise ValueError(
                f"{crop} must have 0 < min_scale <= max_scale <= 1, "
                "0 < min_ratio <= max_ratio and 0 < eval_scale <= 1"
            )
        return crop


def random_box(draw: Draw, size: tf.Tensor, crop: Crop) -> tf.Tensor:
    """The box of a random resized crop.

    Args:
      draw: uniforms; try t uses numbers 4t ... 4t + 3.
      size: (2,) integer, height and width of the image (or of all in the stack).
      crop: area and aspect limits; aspect is log-uniform.

    Returns:
      (..., 4) int32: top, left, height, width. The law of torchvision and timm: of
      ten tries the first that fits, else the largest centred box of allowed aspect.
    """
    height, width = tf.unstack(tf.cast(size, tf.float64))
    u = draw(0, 4 * _TRIES)
    u = tf.reshape(u, tf.concat([tf.shape(u)[:-1], [_TRIES, 4]], axis=0))
    scale = crop.min_scale + (crop.max_scale - crop.min_scale) * u[..., 0]
    low, high = math.log(crop.min_ratio), math.log(crop.max_ratio)
    ratio = tf.exp(low + (high - low) * u[..., 1])
    w = tf.round(tf.sqrt(height * width * scale * ratio))
    h = tf.round(tf.sqrt(height * width * scale / ratio))
    top = tf.floor(u[..., 2] * (height - h + 1))
    left = tf.floor(u[..., 3] * (width - w + 1))
    fits = (h > 0) & (w > 0) & (h <= height) & (w <= width)

    first = tf.argmax(tf.cast(fits, tf.int32), axis=-1)[..., None, None]
    tries = tf.stack([top, left, h, w], axis=-1)
    box = tf.gather(tries, first[..., 0], batch_dims=u.shape.rank - 2, axis=-2)
    found = tf.reduce_any(fits, axis=-1)[..., None]
    box = tf.where(found, box[..., 0, :], _centre_box(height, width, crop))
    return tf.cast(box, tf.int32)


def _centre_box(height: tf.Tensor, width: tf.Tensor, crop: Crop) -> tf.Tensor:
    h = tf.minimum(height, tf.round(width / crop.min_ratio))
    w = tf.minimum(width, tf.round(height * crop.max_ratio))
    return tf.stack([(height - h) // 2, (width - w) // 2, h, w])


def crop_resize(
    image: tf.Tensor, box: tf.Tensor, size: tuple[int, int], method: str
) -> tf.Tensor:
    """Cuts out `box` and resizes it with antialiasing, as PIL does.

    Args:
      image: (..., H, W, 3) uint8.
      box: (..., 4) int32: top, left, height, width.
      size: height and width of the result.
      method: "bicubic" or "lanczos3".

    Returns:
      (..., *size, 3) uint8, rounded and clipped. One image and a stack go different
      ways, which differ by rounding: see `_resample_stack`.
    """
    if image.shape.rank == 3:
        top, left, height, width = tf.unstack(box)
        cut = image[top : top + height, left : left + width]
        return to_uint8(tf.image.resize(cut, size, method, antialias=True))
    return _resample_stack(image, box, size, method)


def centre_crop(
    image: tf.Tensor, size: tuple[int, int], method: str, scale: float = 1.0
) -> tf.Tensor:
    """Resizes until `size / scale` is just covered, then cuts out the centre.

    Args:
      image: (..., H, W, 3) uint8.
      size: height and width of the result.
      method: "bicubic" or "lanczos3".
      scale: part of the short side that is kept.

    Returns:
      (..., *size, 3) uint8.
    """
    wanted = tf.constant(size, tf.float64)
    given = tf.shape(image)[-3:-1]
    zoom = tf.reduce_max(tf.floor(wanted / scale) / tf.cast(given, tf.float64))
    # The small addend undoes the rounding error of an exact fit.
    resized = tf.cast(tf.cast(given, tf.float64) * zoom + 1e-6, tf.int32)
    image = tf.image.resize(image, resized, method, antialias=True)
    # torchvision's CenterCrop: the odd pixel goes by Python's round.
    top, left = tf.unstack(tf.cast(tf.round((resized - size) / 2), tf.int32))
    height, width = size
    image = image[..., top : top + height, left : left + width, :]
    return to_uint8(tf.ensure_shape(image, [*image.shape[:-3], height, width, 3]))


def flip(image: tf.Tensor, where: tf.Tensor) -> tf.Tensor:
    """Mirrors the images (..., H, W, 3) whose entry of `where` (...) is True."""
    return tf.where(where[..., None, None, None], image[..., ::-1, :], image)


def to_uint8(image: tf.Tensor) -> tf.Tensor:
    return tf.saturate_cast(tf.round(image), tf.uint8)


def _resample_stack(
    image: tf.Tensor, box: tf.Tensor, size: tuple[int, int], method: str
) -> tf.Tensor:
    """`crop_resize` of a stack as two products with weight matrices.

    PIL's arithmetic: across, round to 8 bits, down. (Since version 13 it goes down
    first where that is cheaper.) Weights are multiples of 2**-15 and pixels whole
    numbers, so float32 holds every partial sum exactly: the order of summation, and
    with it the batch size, cannot change a pixel.
    """
    top, left, height, width = tf.unstack(box, axis=-1)
    across = _weights(left, width, image.shape[-2], size[1], method)
    down = _weights(top, height, image.shape[-3], size[0], method)
    image = tf.cast(image, tf.float32)
    image = tf.einsum("boi,bhic->bhoc", across, image)
    image = tf.cast(to_uint8(image), tf.float32)
    return to_uint8(tf.einsum("boi,biwc->bowc", down, image))


def _weights(
    start: tf.Tensor, length: tf.Tensor, inputs: int, outputs: int, method: str
) -> tf.Tensor:
    """(B,), (B,) -> (B, outputs, inputs) float32, what each input pixel gives.

    Pixels outside [start, start + length) give nothing; each row sums to 1 but for
    the rounding to multiples of 2**-15.
    """
    kernel = _KERNELS[method]
    zoom = tf.cast(length, tf.float32)[:, None, None] / outputs
    start = tf.cast(start, tf.float32)[:, None, None]
    position = tf.range(inputs, dtype=tf.float32) + 0.5 - start
    centre = (tf.range(outputs, dtype=tf.float32)[:, None] + 0.5) * zoom
    weights = kernel((position - centre) / tf.maximum(zoom, 1.0))
    inside = (position > 0) & (position < tf.cast(length, tf.float32)[:, None, None])
    weights = tf.where(inside, weights, 0.0)
    weights /= tf.reduce_sum(weights, axis=-1, keepdims=True)
    return tf.round(weights / _WEIGHT_UNIT) * _WEIGHT_UNIT


def _cubic(x: tf.Tensor) -> tf.Tensor:
    """Keys's cubic with a = -1/2."""
    x = tf.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((2.5 - 0.5 * x) * x - 4.0) * x + 2.0
    return tf.where(x < 1, near, tf.where(x < 2, far, 0.0))


def _lanczos3(x: tf.Tensor) -> tf.Tensor:
    def sinc(x: tf.Tensor) -> tf.Tensor:
        safe = tf.where(x == 0, 1.0, x * math.pi)
        return tf.where(x == 0, 1.0, tf.sin(safe) / safe)

    return tf.where(tf.abs(x) < 3, sinc(x) * sinc(x / 3), 0.0)


_KERNELS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "bicubic": _cubic,
    "lanczos3": _lanczos3,
}
