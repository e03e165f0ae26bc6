"""The numbers that a setting may be: told where it is declared, held to by lookup.py.

Those of config.py's defaults, which have no other place, are in RANGES.

def soup(size: Length, salt: Share = 0.5, pepper: Annotated[float, Range(0, 9)] = 0)
"""

import math
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, both in it, but for an end that `above` or `below` is.

    No infinity is in any range, nor what is not a number.

    Attributes:
      hint: what a person should know who was outside.
    """

    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    hint: str = ""

    def __contains__(self, value: float) -> bool:
        inside = self.low <= value <= self.high and self.above < value < self.below
        return inside and math.isfinite(value)

    def __str__(self) -> str:
        """The rule, as it follows "must be"."""
        ends = {"at least": self.low, "above": self.above}
        ends |= {"at most": self.high, "below": self.below}
        told = [f"{word} {end}" for word, end in ends.items() if math.isfinite(end)]
        rule = " and ".join(told) or "a finite number"
        if math.isfinite(self.low) and math.isfinite(self.high):
            rule = f"in {self.low} .. {self.high}"
        return rule + (f" ({self.hint})" if self.hint else "")


Count = Annotated[int, Range(0)]
Length = Annotated[int, Range(1)]
Classes = Annotated[int, Range(2)]
Seed = Annotated[int, Range(-(2**63), 2**63 - 1)]
SubsetSeed = Annotated[int, Range(0, 2**32 - 1)]  # what numpy's RandomState takes
Weight = Annotated[float, Range(0)]
Positive = Annotated[float, Range(above=0)]
Share = Annotated[float, Range(0, 1)]
Part = Annotated[float, Range(0, below=1)]
Portion = Annotated[float, Range(above=0, high=1)]

# Of the defaults, but data.augment (see data/settings.py) and what config.OPEN names.
RANGES = {
    "seed": Range(-(2**63), 2**63 - 1),
    "steps": Range(1),
    "epochs": Range(0),
    "data.batch_size": Range(1),
    "data.max_bad": Range(0, 1, hint="a share of the examples"),
    "data.max_pixels": Range(1),
    "data.decoded_cache_gib": Range(0),
    "optim.lr": Range(0),
    "optim.min_lr": Range(0),
    "optim.warmup_lr": Range(0),
    "optim.warmup_steps": Range(0),
    "optim.warmup_epochs": Range(0),
    "optim.decay_steps": Range(1),
    "optim.weight_decay": Range(0, 100),
    "optim.weight_decay_end": Range(0, 100),
    "optim.b1": Range(0, below=1),
    "optim.b2": Range(above=0, below=1),
    "optim.eps": Range(above=0),
    "optim.momentum": Range(0, below=1),
    "optim.clip_norm": Range(0, hint="0: gradients are not clipped"),
    "optim.layer_decay": Range(0.1, 1),  # 0.1**41 is not yet 0 in float32
    "optim.accumulate": Range(1),
    "optim.max_left_out": Range(0),
    "optim.ema_decay": Range(0, below=1, hint="1 would keep the first weights"),
    "optim.ema_decay_end": Range(0, 1),
    "optim.freeze_blocks": Range(0),
    "mesh.data": Range(-1, hint="-1: all devices that are left"),
    "mesh.fsdp": Range(-1, hint="-1: all devices that are left"),
    "mesh.tensor": Range(-1, hint="-1: all devices that are left"),
    "log.watchdog_minutes": Range(0, hint="0: no watchdog"),
    "log.every_steps": Range(0, hint="0: never"),
    "eval.every_steps": Range(0, hint="0: at the end only"),
    "eval.pictures": Range(0),
    "early_stop.patience": Range(1),
    "early_stop.min_delta": Range(0),
    "checkpoint.every_steps": Range(0, hint="0: at the end only"),
    "checkpoint.keep": Range(1),
}
