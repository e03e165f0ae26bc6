"""How far maps of logits are from maps of labels, by name.

A loss is a factory in PIXEL_LOSSES: it checks its settings, and returns what gives a
sum and the weight that it is divided by, (logits, labels, weight) -> two scalars:

  logits  (B, H, W, C) float32
  labels  (B, H, W) int32 in [0, C), IGNORED where there is nothing to learn
  weight  (B,) float32, 0 for what only fills the batch

Where nothing counts the sum is 0, and never NaN.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from beit_jax import lookup
from beit_jax.ranges import Positive, Share, Weight
from beit_jax.tasks.losses import Focus

Array = jax.Array
Pair = tuple[Array, Array]  # a sum and its weight
PixelLoss = Callable[[Array, Array, Array], Pair]

IGNORED = 255  # as in label maps
AVERAGES = ("all", "valid")
ACTIVATIONS = {"softmax": jax.nn.log_softmax, "sigmoid": jax.nn.log_sigmoid}


def _cross_entropy(average: str = "all", class_weights: tuple = ()) -> PixelLoss:
    """Softmax cross-entropy of each pixel, in nats.

    Args:
      average: over "all" pixels, those that are ignored too, as mmsegmentation's
        default has it; or over the "valid" ones, as PyTorch's and transformers'.
      class_weights: a factor for each class; () for none. The mean is then weighed by
        them, an ignored pixel counts 1 in "all".
    """
    _one_of("average", average, AVERAGES)

    def loss(logits: Array, labels: Array, weight: Array) -> Pair:
        valid, label = _valid(labels, weight)
        logs = jax.nn.log_softmax(logits)
        each = -jnp.take_along_axis(logs, label[..., None], axis=-1)[..., 0]
        factor = jnp.ones(labels.shape)
        if class_weights:
            _check_weights(class_weights, logits.shape[-1])
            factor = jnp.where(valid, jnp.array(class_weights, jnp.float32)[label], 1)
        counted = valid if average == "valid" else weight[:, None, None] > 0
        return jnp.sum(each * factor * valid), jnp.sum(factor * counted)

    return loss


def _dice(
    form: str = "classes", activation: str = "softmax", smooth: Positive = 1.0
) -> PixelLoss:
    """1 - 2 |A ∩ B| / (|A| + |B|) of the probabilities and the labels.

    Args:
      form: of which sums it is a mean. "classes": each class over the batch; "images":
        each class in each image; "mmseg": each image with all its classes, A and B
        squared (V-Net, arXiv:1606.04797); "naive": the same, not squared. In the first
        two an ignored pixel is in neither A nor B; in mmsegmentation's it stays in A.
      activation: "softmax", or "sigmoid" for classes that do not exclude each other.
      smooth: added above and below, so that what is nowhere costs nothing;
        mmsegmentation takes 0.001.
    """
    _one_of("form", form, DICE)
    _one_of("activation", activation, ACTIVATIONS)

    def loss(logits: Array, labels: Array, weight: Array) -> Pair:
        valid, label = _valid(labels, weight)
        found = jnp.exp(ACTIVATIONS[activation](logits))
        wanted = jax.nn.one_hot(label, logits.shape[-1]) * valid[..., None]
        each = DICE[form](found, wanted, valid, weight, smooth)
        examples = jnp.sum(weight)
        return jnp.where(valid.any(), each, 0.0) * examples, examples

    return loss


def _apart(found, wanted, axes: tuple[int, ...], smooth: float) -> Array:
    """1 less how much two sets overlap, summed over `axes`."""
    both, either = jnp.sum(found * wanted, axes), jnp.sum(found + wanted, axes)
    return 1 - (2 * both + smooth) / (either + smooth)


def _dice_of_classes(found, wanted, valid, weight, smooth) -> Array:
    return jnp.mean(_apart(found * valid[..., None], wanted, (0, 1, 2), smooth))


def _dice_of_images(found, wanted, valid, weight, smooth) -> Array:
    each = _apart(found * valid[..., None], wanted, (1, 2), smooth)
    return _mean(jnp.mean(each, axis=1), weight)


def _dice_squared(found, wanted, valid, weight, smooth) -> Array:
    axes = (1, 2, 3)
    both = jnp.sum(found * wanted, axes)
    either = jnp.sum(found**2, axes) + jnp.sum(wanted**2, axes) + 2 * smooth
    return _mean(1 - 2 * both / either, weight)


def _dice_naive(found, wanted, valid, weight, smooth) -> Array:
    return _mean(_apart(found, wanted, (1, 2, 3), smooth), weight)


# form -> (probabilities and labels (B, H, W, C), valid, weight, smooth) -> scalar.
DICE = {
    "classes": _dice_of_classes,
    "images": _dice_of_images,
    "mmseg": _dice_squared,
    "naive": _dice_naive,
}


def _focal(
    activation: str = "softmax",
    gamma: Focus = 2.0,
    alpha: Share | None = None,
    average: str = "valid",
) -> PixelLoss:
    """Focal loss (Lin et al., arXiv:1708.02002) of each pixel.

    Args:
      activation: "softmax": of the right class alone; "sigmoid": of each class by
        itself, summed.
      gamma: how much less a pixel counts that is told well.
      alpha: the share of what is wanted against 1 - alpha of what is not, None: alike;
        of "sigmoid" alone. torchvision takes 0.25, mmsegmentation 0.5.
      average: over "valid" pixels; or over "all" pixels and their classes, as
        mmsegmentation's.
    """
    _one_of("activation", activation, ACTIVATIONS)
    _one_of("average", average, AVERAGES)
    if activation == "softmax" and alpha is not None:
        raise ValueError(
            f"config.task.losses.focal: alpha={alpha} is for activation='sigmoid'"
        )
    each_of = _focal_softmax if activation == "softmax" else _focal_sigmoid

    def loss(logits: Array, labels: Array, weight: Array) -> Pair:
        valid, label = _valid(labels, weight)
        wanted = jax.nn.one_hot(label, logits.shape[-1])
        total = jnp.sum(each_of(logits, wanted, gamma, alpha) * valid)
        if average == "valid":
            return total, jnp.sum(valid)
        return total, jnp.sum(weight) * labels[0].size * logits.shape[-1]

    return loss


def _focal_softmax(logits: Array, wanted: Array, gamma: float, alpha) -> Array:
    log = jnp.sum(jax.nn.log_softmax(logits) * wanted, axis=-1)
    wrong = jnp.sum(jax.nn.softmax(logits) * (1 - wanted), axis=-1)
    return -(wrong**gamma) * log


def _focal_sigmoid(logits: Array, wanted: Array, gamma: float, alpha) -> Array:
    toward = jnp.where(wanted > 0, logits, -logits)
    each = -jax.nn.log_sigmoid(toward) * jax.nn.sigmoid(-toward) ** gamma
    if alpha is not None:
        each *= jnp.where(wanted > 0, alpha, 1 - alpha)
    return jnp.sum(each, axis=-1)


# Below task.losses, by these names -> from its settings the loss of a batch.
PIXEL_LOSSES = {
    "cross_entropy": _cross_entropy,
    "dice": _dice,
    "focal": _focal,
}


def part(weight: Weight = 1.0) -> float:
    """One of several losses, whose sum is trained.

    Its section is called as the loss is, or else has a `name`.

    Args:
      weight: of it in the sum.
    """
    return weight


def build(sections: Mapping[str, Any]) -> PixelLoss:
    """The sum of the losses that `task.losses` has; its weight is that of the first.

    Raises:
      ValueError: none, no such loss, or settings that do not fit.
    """
    where, parts = "config.task.losses", []
    if not sections:
        raise ValueError(f"{where} is empty; give {', '.join(PIXEL_LOSSES)} or several")
    for key, section in sections.items():
        settings = {"weight": 1.0, "name": key, **dict(section)}
        shared, here = {"weight": settings.pop("weight")}, f"{where}.{key}"
        make = lookup.lookup(PIXEL_LOSSES, settings.pop("name"), where)
        factor = lookup.call(part, shared, here)
        parts.append((factor, lookup.call(make, settings, here)))

    def loss(logits: Array, labels: Array, weight: Array) -> Pair:
        pairs = [each(logits, labels, weight) for _, each in parts]
        means = [s / jnp.maximum(n, 1e-9) for s, n in pairs]
        total = sum(f * mean for (f, _), mean in zip(parts, means, strict=True))
        count = pairs[0][1]
        return total * count, count

    return loss


def hits(logits: Array, labels: Array, weight: Array) -> Pair:
    """How many pixels are told right, and how many there are to tell."""
    valid, label = _valid(labels, weight)
    return jnp.sum((jnp.argmax(logits, -1) == label) & valid), jnp.sum(valid)


def _valid(labels: Array, weight: Array) -> tuple[Array, Array]:
    """Which pixels count (B, H, W), and the labels with 0 where they do not."""
    valid = (labels != IGNORED) & (weight > 0)[:, None, None]
    return valid, jnp.where(valid, labels, 0)


def _mean(each: Array, weight: Array) -> Array:
    return jnp.sum(each * weight) / jnp.maximum(jnp.sum(weight), 1e-9)


def _one_of(key: str, value: str, known) -> None:
    if value not in known:
        raise ValueError(
            f"config.task.losses: {key}={value!r} must be one of {', '.join(known)}"
        )


def _check_weights(given: tuple, classes: int) -> None:
    if len(given) != classes:
        raise ValueError(
            f"config.task.losses.cross_entropy: class_weights={given} must be one "
            f"number for each of the {classes} classes"
        )
