"""How long a run is, how often it does what, in steps."""

import math
from typing import NamedTuple

from ml_collections import ConfigDict


class Plan(NamedTuple):
    """A run's durations, all in optimizer steps; 0 in an interval means never."""

    total: int
    warmup: int
    log: int
    save: int
    decay: int | None = None  # where the learning rate is final; None: at the end

    @classmethod
    def from_config(cls, config: ConfigDict, steps_per_epoch: float) -> "Plan":
        """Raises ValueError when the run is empty or the warm-up does not fit."""

        def steps(given: int | None, epochs: float | None) -> int:
            return given if given is not None else math.ceil(epochs * steps_per_epoch)

        plan = cls(
            total=steps(config.steps, config.epochs),
            warmup=steps(config.optim.warmup_steps, config.optim.warmup_epochs),
            log=config.log.every_steps,
            save=config.checkpoint.every_steps,
            decay=config.optim.decay_steps,
        )
        if plan.total < 1:
            raise ValueError(f"epochs={config.epochs} is not a single step")
        if plan.warmup >= plan.total and config.steps is not None:
            plan = plan._replace(warmup=plan.total // 2)  # a run cut short by --steps
        if plan.warmup >= plan.total:
            raise ValueError(
                f"warm-up of {plan.warmup} steps leaves nothing of {plan.total}; "
                "lower optim.warmup_epochs or raise epochs"
            )
        if plan.decay is not None and plan.decay <= plan.warmup:
            raise ValueError(
                f"optim.decay_steps={plan.decay} must be beyond the warm-up of "
                f"{plan.warmup} steps"
            )
        return plan
