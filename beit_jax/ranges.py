"""The numbers that a setting may be: told where it is declared, held to by lookup.py.

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
