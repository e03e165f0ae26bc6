"""Where the time of a run goes, over all its starts."""

import time
from collections.abc import Mapping, Sequence

# Up to the first batch; the first step, which compiles; waiting for batches; steps, as
# far as the host waits for them; evaluations and pictures; saves, but for what is
# written in the background; what was done after the checkpoint that a later start goes
# on from, and had to be done again.
BUCKETS = ("start", "compile", "data", "step", "evaluation", "saving", "lost")


class Clock:
    """Adds up the seconds of each bucket; together they are all since it was made."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._seconds = dict.fromkeys(BUCKETS, 0.0)

    def lap(self, bucket: str) -> None:
        """All since the last call went to `bucket`."""
        now = time.perf_counter()
        self._seconds[bucket] += now - self._last
        self._last = now

    def go_on(self, told: Sequence[Mapping[str, float]], step: int) -> None:
        """Adds the time of earlier starts, of which `step` is what is left.

        Args:
          told: what was reported of it, each with its step.
        """
        if not told:
            return
        *_, kept = {}, *(times for times in told if times["step"] <= step)
        for bucket in BUCKETS:
            self._seconds[bucket] += kept.get(f"time/{bucket}", 0.0)
        self._seconds["lost"] += total(told[-1]) - total(kept)

    def told(self) -> dict[str, float]:
        """Seconds up to the last lap, as "time/BUCKET"; of them the share of steps."""
        total = sum(self._seconds.values())
        times = {f"time/{k}": round(s, 3) for k, s in self._seconds.items()}
        return times | {"goodput": round(self._seconds["step"] / max(total, 1e-9), 4)}


def total(times: Mapping[str, float]) -> float:
    """Seconds of all buckets of a report."""
    return sum(times.get(f"time/{bucket}", 0.0) for bucket in BUCKETS)
