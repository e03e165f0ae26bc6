"""How a rate moves over the steps of a run."""

import jax.numpy as jnp
import numpy as np

from beit_jax.config import Plan


def warmup_cosine(step, plan: Plan, peak: float, final: float, xp=jnp):
    """Learning rate of optimizer step `step` (0-based).

    Both ends of the warm-up are included: step 0 has rate 0, step `warmup - 1` and the
    step after it both have `peak`; the cosine ends at `plan.decay` or, never quite
    reaching `final`, with the run. This is `cosine_scheduler` of the official code.
    With `xp=numpy` it computes in float64.
    """
    rising = peak * step / max(plan.warmup - 1, 1)
    end = plan.total if plan.decay is None else plan.decay
    done = xp.minimum((step - plan.warmup) / (end - plan.warmup), 1)
    falling = final + 0.5 * (peak - final) * (1 + xp.cos(np.pi * done))
    return xp.where(step < plan.warmup, rising, falling)
