"""How a rate moves over the steps of a run: up to its peak, then by a named schedule.

A schedule is a factory in SCHEDULES: it checks its settings, and returns what gives the
rate after the warm-up, (step, share of the way done, peak, final, xp) -> rate.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from beit_jax.config import Plan
from beit_jax.lookup import build
from beit_jax.ranges import Positive

Falling = Callable[..., Any]
Rate = Callable[..., Any]  # (step, xp=jnp) -> the value at optimizer step `step`


def _cosine() -> Falling:
    """`cosine_scheduler` of the official code."""

    def falling(step, done, peak, final, xp):
        return final + 0.5 * (peak - final) * (1 + xp.cos(np.pi * done))

    return falling


def _poly(
    power: Positive = 1.0,  # of the share left
) -> Falling:
    """Falls with (share left) ** power; 1 is a straight line.

    PolyLR of mmsegmentation 1.x gets to `final` with its last step, this would one step
    later. In earlier versions, as in BEiT's segmentation, the share is of the whole run
    and the warm-up a factor on it: lower, by up to the warm-up's share of the run.
    """

    def falling(step, done, peak, final, xp):
        return final + (peak - final) * (1 - done) ** power

    return falling


def _steps(
    milestones: tuple,  # optimizer steps, rising
    factor: Positive = 0.1,  # on the rate, from each of them on
) -> Falling:
    """Multiplied by `factor` from each of those optimizer steps on; no `final`."""
    if not milestones or not all(type(at) is int and at > 0 for at in milestones):
        raise ValueError(
            f"optim.schedule.milestones={milestones} must be optimizer steps above 0; "
            "without any, use the schedule 'constant'"
        )
    if list(milestones) != sorted(set(milestones)):
        raise ValueError(
            f"optim.schedule.milestones={milestones} must each be above the one before"
        )

    def falling(step, done, peak, final, xp):
        return peak * factor ** sum(xp.where(step >= at, 1.0, 0.0) for at in milestones)

    return falling


def _constant() -> Falling:
    """Stays at the peak; no `final`."""
    return lambda step, done, peak, final, xp: peak


# optim.schedule.name -> from its settings the rate after the warm-up.
SCHEDULES = {"cosine": _cosine, "poly": _poly, "steps": _steps, "constant": _constant}


def make(
    spec: Mapping, plan: Plan, peak: float, final: float, start: float = 0.0
) -> Rate:
    """(step, xp=jnp) -> the rate of optimizer step `step` (0-based).

    Both ends of the warm-up are included: step 0 has rate `start`, step `warmup - 1`
    and the step after it both have `peak`; the way down ends at `plan.decay` or, never
    quite reaching `final`, with the run. With `xp=numpy` it computes in float64.

    Args:
      spec: the section `optim.schedule`.

    Raises:
      ValueError: no such schedule, or settings that it does not take.
    """
    falling = build(SCHEDULES, spec, "optim.schedule")

    def rate(step, xp=jnp):
        rising = start + (peak - start) * step / max(plan.warmup - 1, 1)
        end = plan.total if plan.decay is None else plan.decay
        done = xp.minimum((step - plan.warmup) / (end - plan.warmup), 1)
        fallen = falling(step, done, peak, final, xp)
        return xp.where(step < plan.warmup, rising, fallen)

    return rate


def over_the_run(plan: Plan, first: float, last: float | None) -> float | Rate:
    """A constant or, with a `last`, a cosine over the whole run without warm-up.

    The latter is `--weight_decay_end` of BEiT's official code, and how DINO's takes the
    momentum of its teacher to 1.
    """
    if last is None:
        return first
    return make({"name": "cosine"}, plan._replace(warmup=0, decay=None), first, last)
