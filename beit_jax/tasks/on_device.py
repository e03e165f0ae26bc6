"""Augmentations that the step does on the device, from parameters in the batch.

All of chance is in the parameters, which the input pipeline draws for each example:

  jitter  (B, S, 2) float32  of each step in order: 0 brightness, 1 contrast or
                             2 saturation, and its factor (1: no change)
  erase   (B, 4) int32       top, left, height, width of the box; all 0: none
  erase_seed  (B,) uint32    of the noise
  mix     (B, 5) float32     lam; top, bottom, left, right of CutMix's box, bottom and
                             right excluded; an empty box: Mixup

In `beit_jax.data` they come from colour.pack, erasing and mixing.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.tasks.base import Array, Batch

_JITTER_STEPS = 3  # brightness, contrast, saturation
_LUMA = (19595, 38470, 7471)  # of 65536: ITU-R 601-2, as Pillow's mode "L"


def example_spec(config: ConfigDict, labels: bool) -> dict[str, jax.ShapeDtypeStruct]:
    """The parameters that the settings of `config.data.augment` ask for.

    Raises:
      ValueError: a setting for images with labels, where a task has none.
    """
    ours = config.data.augment
    for_labels = ("randaugment", "trivialaugment", "augmix", "three_augment")
    for_labels += ("erase", "mixup", "cutmix")
    given = [name for name in for_labels if ours[name]]
    if given and not labels:
        raise ValueError(
            f"config.data.augment.{given[0]}={ours[given[0]]!r} is for classification; "
            f"task {config.task.name!r} cannot use it"
        )
    means = PIXEL_SPACES[config.model.get("pixels", "half")].mean
    fill = tuple(min(255, round(255 * mean)) for mean in means)
    moves = ours.randaugment or ours.trivialaugment or ours.augmix
    if moves and tuple(ours.fill) != fill:
        raise ValueError(
            f"config.data.augment.fill={tuple(ours.fill)} is not the mean of "
            f"model.pixels={config.model.get('pixels')!r}, which is {fill}"
        )
    spec = {}
    if ours.jitter and ours.jitter_on == "device":
        spec["jitter"] = jax.ShapeDtypeStruct((_JITTER_STEPS, 2), jnp.float32)
    if ours.erase:
        spec["erase"] = jax.ShapeDtypeStruct((4,), jnp.int32)
        spec["erase_seed"] = jax.ShapeDtypeStruct((), jnp.uint32)
    if ours.mixup or ours.cutmix:
        spec["mix"] = jax.ShapeDtypeStruct((5,), jnp.float32)
    return spec


def pixels(batch: Batch, name: str) -> Array:
    """The view `name` of a batch in [0, 255]: uint8, or float if jittered here."""
    image = batch[name]
    return jitter(image, batch["jitter"]) if "jitter" in batch else image


def jitter(image: Array, parameters: Array) -> Array:
    """Colour jitter, torchvision's ColorJitter without hue, to the last level.

    Args:
      image: (B, H, W, 3) whole numbers in [0, 255].
      parameters: (B, S, 2), see above.

    Returns:
      (B, H, W, 3) float32, whole numbers in [0, 255].

    Contrast takes the mean of the image it gets: give it the whole image to have
    torchvision's, for on a crop its law is another.
    """
    image = image.astype(jnp.float32)
    for step in range(parameters.shape[1]):
        kind, factor = (x[:, None, None, None] for x in parameters[:, step].T)
        grey = _grey(image)
        mean = jnp.floor(jnp.mean(grey, axis=(1, 2), keepdims=True) + 0.5)
        other = jnp.where(kind == 0, 0.0, jnp.where(kind == 1, mean, grey))
        image = jnp.floor(jnp.clip(other + factor * (image - other), 0.0, 255.0))
    return image


def erase(image: Array, boxes: Array, seeds: Array) -> Array:
    """Overwrites a box of each image with N(0, 1) for every pixel and channel.

    Args:
      image: (B, H, W, 3) float, normalised.
      boxes: (B, 4) int32, see above.
      seeds: (B,) uint32; an example's noise depends on its own seed only.
    """
    top, left, height, width = (x[:, None] for x in boxes.T)
    inside = _inside(image.shape, top, top + height, left, left + width)
    noise = jax.vmap(lambda seed: _noise(seed, image.shape[1:]))(seeds)
    return jnp.where(inside, noise.astype(image.dtype), image)


def mix(image: Array, targets: Array, parameters: Array) -> tuple[Array, Array]:
    """Mixup or CutMix of each row with its partner, row i with row B - 1 - i.

    Args:
      image: (B, H, W, 3) float.
      targets: (B, C) class probabilities.
      parameters: (B, 5), see above. Equal rows are timm's batch mode, rows drawn one
        by one its elem mode.

    Returns:
      Images and targets of the same shapes and dtypes.
    """
    lam, box = parameters[:, 0], parameters[:, 1:]
    top, bottom, left, right = (x[:, None] for x in box.T)
    inside = _inside(image.shape, top, bottom, left, right)
    cutmix = ((bottom > top) & (right > left))[..., None, None]
    cut = jnp.where(inside, image[::-1], image)
    mixed = jnp.where(cutmix, cut, blend(image, lam[:, None, None, None]))
    return mixed, blend(targets, lam[:, None])


def soft_targets(labels: Array, classes: int, smoothing: float) -> Array:
    """(B,) integers -> (B, classes) float32, `smoothing` of it spread over all classes.

    Off is smoothing / classes, on 1 - smoothing + off, as in timm.
    """
    return jax.nn.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes


def _grey(image: Array) -> Array:
    """(B, H, W, 3) -> (B, H, W, 1), both whole numbers as float32."""
    levels = image.astype(jnp.int32) * jnp.array(_LUMA)
    total = jnp.sum(levels, axis=-1, keepdims=True) + 0x8000
    return jnp.right_shift(total, 16).astype(jnp.float32)


def blend(x: Array, lam: Array) -> Array:
    """lam of each row of x and 1 - lam of its partner."""
    return (x * lam + x[::-1] * (1 - lam)).astype(x.dtype)


def _inside(
    shape: tuple[int, ...], top: Array, bottom: Array, left: Array, right: Array
) -> Array:
    """Boxes given by (B, 1) limits -> (B, H, W, 1) bool."""
    row, column = jnp.arange(shape[1]), jnp.arange(shape[2])
    rows = (row >= top) & (row < bottom)
    columns = (column >= left) & (column < right)
    return (rows[:, :, None] & columns[:, None, :])[..., None]


def _noise(seed: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.normal(jax.random.key(seed), shape)
