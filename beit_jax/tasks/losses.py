"""How far the outputs of a head are from what is wanted, by name.

A loss is a factory in LOSSES: it checks its settings, and returns what gives one number
an image, (outputs, wanted, positive) -> (B,) float32:

  outputs   (B, C) float32, logits; of regression the numbers themselves
  wanted    (B, C) float32, the share of each class in [0, 1]; of regression numbers
  positive  (C,) factors on what is wanted of a class, or 1.0; for those of many labels
"""

from collections.abc import Callable
from typing import Annotated

import jax
import optax

from beit_jax.ranges import Part, Positive, Range, Share
from beit_jax.targets import distances

Array = jax.Array
Loss = Callable[..., Array]

# Below 1, the slope of focal loss has no bound where a class is sure.
Focus = Annotated[float, Range(1)]


def _cross_entropy() -> Loss:
    """Softmax cross-entropy, in nats; of one label an image."""
    return lambda logits, wanted, positive=1.0: optax.softmax_cross_entropy(
        logits, wanted
    )


def _binary(threshold: Part | None = None, sum_classes: bool = False) -> Loss:
    """The mean of each class's own cross-entropy: timm's BinaryCrossEntropy.

    Args:
      threshold: a share above it is wanted whole, any other not at all: timm's
        `target_threshold`, by which mixed images have both labels.
      sum_classes: the sum over the classes instead of their mean.
    """

    def loss(logits: Array, wanted: Array, positive: Array | float = 1.0) -> Array:
        if threshold is not None:
            wanted = (wanted > threshold).astype(logits.dtype)
        each = _each_class(logits, wanted, positive)
        return each.sum(axis=1) if sum_classes else each.mean(axis=1)

    return loss


def _focal(gamma: Focus = 2.0, alpha: Share | None = 0.25) -> Loss:
    """Focal loss (Lin et al., arXiv:1708.02002, eq. 5), summed over the classes.

    Args:
      gamma: how much less a class counts that is told well.
      alpha: the share of what is wanted against 1 - alpha of what is not; None: alike.
    """

    def loss(logits: Array, wanted: Array, positive: Array | float = 1.0) -> Array:
        p = jax.nn.sigmoid(logits)
        wrong = p * (1 - wanted) + (1 - p) * wanted
        each = _each_class(logits, wanted, positive) * wrong**gamma
        if alpha is not None:
            each *= alpha * wanted + (1 - alpha) * (1 - wanted)
        return each.sum(axis=1)

    return loss


def _each_class(logits: Array, wanted: Array, positive: Array | float) -> Array:
    """(B, C) nats: cross-entropies of "this class" and "not this class"."""
    yes, no = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return -(positive * wanted * yes + (1 - wanted) * no)


def _mse() -> Loss:
    """The mean of the squares."""
    return distances.mse


def _l1() -> Loss:
    """The mean of the distances."""
    return distances.l1


def _smooth_l1(beta: Positive = 1.0) -> Loss:
    """PyTorch's SmoothL1Loss.

    Args:
      beta: the distance below which it is a square, and beyond which it grows evenly.
    """

    return lambda found, wanted: distances.smooth_l1(found, wanted, beta)


# task.loss.name -> from its settings the loss of an image.
LOSSES = {
    "cross_entropy": _cross_entropy,
    "binary": _binary,
    "focal": _focal,
    "mse": _mse,
    "l1": _l1,
    "smooth_l1": _smooth_l1,
}
