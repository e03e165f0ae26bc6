"""Where the time of a run goes: nothing is lost and nothing is counted twice."""

import time

import numpy as np

from beit_jax.run.clock import BUCKETS, Clock
from beit_jax.train import train
from tests import tiny


def test_laps_add_up_to_all_the_time_there_was():
    begun, clock = time.perf_counter(), Clock()
    for bucket in ("start", "data", "step", "data"):
        time.sleep(0.01)
        clock.lap(bucket)
    told = clock.told()
    wall = time.perf_counter() - begun
    assert set(told) == {f"time/{bucket}" for bucket in BUCKETS}
    assert 0.04 <= sum(told.values()) <= wall + 0.003
    assert told["time/data"] >= 0.02 and told["time/saving"] == 0


def test_a_run_tells_where_its_time_went(tmp_path, quick_to_compile):
    begun = time.perf_counter()
    train(tiny.config("classify", log__every_steps=3), tmp_path, quiet=True)
    wall = time.perf_counter() - begun
    lines = tiny.lines(tmp_path, "time/step")
    sums = [sum(v for k, v in line.items() if k != "step") for line in lines]
    assert np.all(np.diff(sums) >= 0) and 0.8 * wall < sums[-1] <= wall + 0.01
    for bucket in ("start", "compile", "evaluation", "saving"):
        assert lines[-1][f"time/{bucket}"] > 0, bucket
