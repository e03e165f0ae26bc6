"""Where the time of a run goes: nothing is lost and nothing is counted twice."""

import time

import numpy as np

from beit_jax.run.clock import BUCKETS, Clock
from beit_jax.train import train
from tests import tiny


def added_up(times) -> float:
    return sum(times[f"time/{bucket}"] for bucket in BUCKETS)


def test_laps_add_up_to_all_the_time_there_was():
    begun, clock = time.perf_counter(), Clock()
    for bucket in ("start", "data", "step", "data"):
        time.sleep(0.01)
        clock.lap(bucket)
    told = clock.told()
    wall = time.perf_counter() - begun
    assert {*told} == {"goodput"} | {f"time/{bucket}" for bucket in BUCKETS}
    assert 0.04 <= added_up(told) <= wall + 0.003
    assert told["time/data"] >= 0.02 and told["time/saving"] == 0


def test_a_run_tells_where_its_time_went(tmp_path):
    begun = time.perf_counter()
    train(tiny.config("classify", log__every_steps=3), tmp_path, quiet=True)
    wall = time.perf_counter() - begun
    lines = tiny.lines(tmp_path, "time/step")
    sums = [*map(added_up, lines)]
    assert np.all(np.diff(sums) >= 0) and 0.8 * wall < sums[-1] <= wall + 0.01
    for bucket in ("start", "compile", "evaluation", "saving"):
        assert lines[-1][f"time/{bucket}"] > 0, bucket
    share = lines[-1]["time/step"] / sums[-1]
    assert abs(lines[-1]["goodput"] - share) < 1e-3


def test_a_later_start_adds_up_and_counts_what_was_lost():
    def report(step, seconds):
        return {"step": step} | dict.fromkeys([f"time/{b}" for b in BUCKETS], seconds)

    clock = Clock()
    clock.go_on([], 0)
    assert added_up(clock.told()) == 0
    clock.go_on([report(3, 1.0), report(5, 2.0), report(6, 4.0)], 5)
    told = clock.told()
    assert added_up(told) == 4 * len(BUCKETS)  # all that there was
    assert told["time/lost"] == 2 + 2 * len(BUCKETS) and told["time/step"] == 2
    clock = Clock()
    clock.go_on([report(3, 1.0)], 2)  # killed before its first save
    assert clock.told()["time/lost"] == added_up(clock.told()) == len(BUCKETS)
