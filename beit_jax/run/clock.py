"""Where the time of a run goes."""

import time

# Up to the first batch; the first step, which compiles; waiting for batches; steps, as
# far as the host waits for them; evaluations and pictures; saves, but for what is
# written in the background.
BUCKETS = ("start", "compile", "data", "step", "evaluation", "saving")


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

    def told(self) -> dict[str, float]:
        """Seconds up to the last lap, as "time/BUCKET"."""
        return {f"time/{k}": round(s, 3) for k, s in self._seconds.items()}
