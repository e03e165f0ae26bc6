"""Mixup and CutMix: how much of the partner a row of the batch gets, and where.

`beit_jax.tasks.on_device.mix` does it on the device, with these parameters.
"""

import math

import numpy as np

NUMBERS = 5  # uniforms that `mix_parameters` uses


def mix_parameters(
    u: np.ndarray,
    size: tuple[int, int],
    mixup_alpha: float,
    cutmix_alpha: float,
    probability: float = 1.0,
    switch: float = 0.5,
) -> np.ndarray:
    """The law of timm's Mixup; give all rows of a batch one result for its batch mode.

    That of timm 1.0.31. In the versions of the official code, boxes of odd height or
    width are one pixel smaller.

    Args:
      u: (NUMBERS,) uniforms: whether; CutMix or Mixup; lam; row and column of the
        box's centre.
      size: height and width of the image.
      mixup_alpha: lam of Mixup is Beta(alpha, alpha); 0: no Mixup.
      cutmix_alpha: as `mixup_alpha`; one of the two is above 0.
      probability: that anything is mixed.
      switch: probability of CutMix, where both may be.

    Returns:
      (5,) float32: lam, the share of the row itself, and top, bottom, left, right of
      the box that comes from the partner, bottom and right excluded. With CutMix lam
      is corrected to the box as clipped by the image; with Mixup the box is all 0.
    """
    if min(mixup_alpha, cutmix_alpha) < 0 or max(mixup_alpha, cutmix_alpha) == 0:
        raise ValueError(
            f"mixup_alpha={mixup_alpha} and cutmix_alpha={cutmix_alpha} must be >= 0 "
            "and one of them above; leave mixing out for none"
        )
    from scipy.special import betaincinv  # .2 s: where somebody mixes

    lam, box = 1.0, (0, 0, 0, 0)
    if u[0] < probability:
        cutmix = cutmix_alpha > 0 and (mixup_alpha == 0 or u[1] < switch)
        alpha = cutmix_alpha if cutmix else mixup_alpha
        lam = float(betaincinv(alpha, alpha, u[2]))
        if cutmix:
            box = _cutmix_box(lam, size, u[3:])
            area = (box[1] - box[0]) * (box[3] - box[2])
            lam = 1.0 - area / (size[0] * size[1])
    return np.array((lam, *box), np.float32)


def _cutmix_box(
    lam: float, size: tuple[int, int], u: np.ndarray
) -> tuple[int, int, int, int]:
    """About 1 - lam of the area around a uniform centre, clipped to the image."""
    (top, bottom), (left, right) = (
        _cutmix_range(math.sqrt(1 - lam), length, number)
        for length, number in zip(size, u, strict=True)
    )
    return top, bottom, left, right


def _cutmix_range(part: float, length: int, u: float) -> tuple[int, int]:
    cut, centre = int(length * part), int(u * length)
    start = centre - cut // 2
    return max(start, 0), min(start + cut, length)
