"""Signals to a run, and what ends one that hangs."""

import signal
import subprocess
import sys
import time

import pytest

from beit_jax.run import stop as stop_lib
from beit_jax.run.stop import Preempted, StopSignal


@pytest.fixture(autouse=True)
def as_on_a_terminal():
    """Where tests run in the background, or under nohup, some are ignored."""
    handlers = {signal.SIGINT: signal.default_int_handler}
    handlers |= dict.fromkeys((signal.SIGTERM, signal.SIGHUP), signal.SIG_DFL)
    before = {number: signal.signal(number, act) for number, act in handlers.items()}
    yield
    for number, act in before.items():
        signal.signal(number, act)


KINDS = pytest.mark.parametrize("number", StopSignal.SIGNALS)


@KINDS
def test_signals_that_come_together_ask_once(number):
    """To the process and to its group, or by a launcher and its wrapper."""
    with StopSignal() as stop:
        assert not stop.requested()
        signal.raise_signal(number)
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested() and stop.requested()


@KINDS
def test_a_signal_before_the_first_step_ends_at_once(number):
    with pytest.raises(Preempted, match="before its first step"), StopSignal():
        signal.raise_signal(number)
        time.sleep(5)
        pytest.fail("it went on")


def test_a_second_signal_that_comes_later_acts_as_always(monkeypatch):
    monkeypatch.setattr(stop_lib, "GRACE", 0.0)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as caught, StopSignal() as stop:
        stop.requested()
        signal.raise_signal(signal.SIGINT)
        assert stop.requested()
        signal.raise_signal(signal.SIGINT)
    assert caught.type is KeyboardInterrupt
    assert signal.getsignal(signal.SIGINT) is before


def test_a_hang_up_that_is_ignored_stays_so():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            stop.requested()
            signal.raise_signal(signal.SIGHUP)
            assert not stop.requested()
    finally:
        signal.signal(signal.SIGHUP, before)


HANGING = """
import time
from beit_jax.run.stop import StopSignal
with StopSignal(watchdog_minutes=0.02) as stop:
    time.sleep(2)  # before the first step: no clock runs
    for _ in range(4):
        stop.requested()
        time.sleep(0.5)
    print("steps are done", flush=True)
    def where_it_hangs():
        time.sleep(60)
    where_it_hangs()
"""


def test_a_run_that_hangs_shows_where_and_ends():
    done = subprocess.run(
        [sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 70, done.stderr
    assert "steps are done" in done.stdout
    assert "where_it_hangs" in done.stderr
    assert "error: no step for 0.02 minutes" in done.stderr
