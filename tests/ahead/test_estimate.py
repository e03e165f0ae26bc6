"""Seconds, days and the work of hosts by closed forms."""

import pytest

from beit_jax.ahead import estimate
from beit_jax.ahead.collectives import Collective
from beit_jax.ahead.targets import Target

# Rates that make round numbers.
TARGET = Target("cuda", 80, 100.0, 50.0, 10.0, 1000, 200, 25, 8)


def sending(sent: float, beside: int = 0) -> Collective:
    return Collective("all-reduce", ("data",), beside, 1, 0, sent)


def test_products_take_their_time_by_precision():
    flops = {"bfloat16": 1e12, "float32": 1e12, "highest": 1e12}
    found = estimate.seconds(flops, 0, [], TARGET)
    assert found.products == pytest.approx(0.01 + 0.02 + 0.1)
    assert (found.bound, found.step) == ("products", found.products)


def test_a_step_is_as_slow_as_its_slowest_part():
    found = estimate.seconds({"bfloat16": 1e12}, 50e9, [sending(4e9)], TARGET)
    assert found == pytest.approx((0.01, 0.05, 0.02))
    assert (found.bound, found.step) == ("memory", 0.05)


@pytest.mark.parametrize(
    "beside, gb_s", [(0, 200), (1, 25), (4, 100), (8, 200), (16, 200)]
)
def test_between_hosts_a_group_shares_its_adapters(beside, gb_s):
    found = estimate.seconds({}, 0, [sending(1e9, beside)], TARGET)
    assert found.network == pytest.approx(1 / gb_s)


def test_what_hosts_must_do():
    batch, state = {"images": 1000, "bytes": 10**9}, {"bytes": 2 * 10**9, "every": 100}
    found = estimate.hosts(0.5, batch, 4, estimate.Feed(250.0, 100.0), state)
    assert found == pytest.approx(
        {
            "hosts": 4,
            "images_per_second": 2000,
            "images_per_second_a_host": 500,
            "cores_a_host": 2,
            "read_gb_an_hour_a_host": 500 * 3600 * 1e5 / 1e9,
            "to_devices_gb_an_hour_a_host": 0.5 * 3600,
            "checkpoint_gb": 2,
            "checkpoints_gb_an_hour": 3600 / 50 * 2,
        }
    )


def test_a_run_that_saves_at_its_end_writes_nothing_on_the_way():
    batch, state = {"images": 1, "bytes": 1}, {"bytes": 10**9, "every": 0}
    found = estimate.hosts(1.0, batch, 1, estimate.Feed(1.0, 1.0), state)
    assert found["checkpoints_gb_an_hour"] == 0


def test_days_and_cost_of_a_recipe():
    found = estimate.whole(0.5, 2 * 86400 * 3, devices=8, price=1.5)
    assert found == {"steps": 518400, "days": 3, "device_hours": 576, "cost": 864}
    assert "cost" not in estimate.whole(0.5, 1, devices=8, price=0)
