"""From what a step computes, moves and sends to seconds, days and what hosts must do.

The arithmetic of a roofline: a step takes as long as the slowest of its products, its
memory and its network would alone, each at the published rate. It is a floor.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from beit_jax.ahead.collectives import Collective
from beit_jax.ahead.targets import Target

_ASSUMED = (
    "products, memory and network at the published rates, all three at once: a floor",
    "the products are spread evenly over the devices; matrix products and convolutions "
    "are counted, nothing else is",
    "memory traffic is that of the program's text: no cache, no padding to tiles",
    "collectives go around rings; between hosts with all adapters that a group has",
    "no evaluation, no start, no saves, no waiting for data",
)


class Seconds(NamedTuple):
    """Of one step, were there nothing else to do."""

    products: float
    memory: float
    network: float

    @property
    def step(self) -> float:
        return max(self)

    @property
    def bound(self) -> str:
        """What the step waits for."""
        return max(zip(self, self._fields, strict=True))[1]


def seconds(
    flops: Mapping[str, float],
    traffic: float,
    sends: Sequence[Collective],
    target: Target,
) -> Seconds:
    """Of a step on one device.

    Args:
      flops: of that device, by precision.
      traffic: bytes that it reads and writes.
      sends: what it sends; to others of its host, or beyond by all their adapters.
    """
    return Seconds(
        sum(count / target.rate(kind) for kind, count in flops.items()),
        traffic / (1e9 * target.bandwidth),
        sum(one.sent / (1e9 * _speed(one, target)) for one in sends),
    )


def _speed(one: Collective, target: Target) -> float:
    """GB/s."""
    return min(target.link, target.far * one.beside) if one.beside else target.link


class Feed(NamedTuple):
    """What the input is taken to be like."""

    images_per_core: float  # a second, that a core decodes and augments
    image_kb: float  # of an image as stored


def assumed(target: Target, feed: Feed) -> list[str]:
    """Sentences on what all of these numbers stand on."""
    own = [
        f"a core makes {feed.images_per_core:g} images a second, each of which is "
        f"stored in {feed.image_kb:g} kB"
    ]
    if target.usable < target.memory:
        own.append(
            f"XLA_PYTHON_CLIENT_MEM_FRACTION={target.usable / target.memory:.2g}: of a "
            f"card's {target.memory:g} GiB JAX takes .75 unless told otherwise"
        )
    return [*_ASSUMED, *own]


def hosts(
    step: float,
    batch: Mapping[str, int],
    count: int,
    feed: Feed,
    state: Mapping[str, int],
) -> dict[str, float]:
    """What each of `count` hosts must do for a step of so many seconds.

    Args:
      batch: "images" and "bytes" of a global batch.
      state: "bytes" of a checkpoint and "every" so many steps (0: at the end only).
    """
    images = batch["images"] / step
    saves = 3600 / (step * state["every"]) if state["every"] else 0.0
    return {
        "hosts": count,
        "images_per_second": images,
        "images_per_second_a_host": images / count,
        "cores_a_host": images / count / feed.images_per_core,
        "read_gb_an_hour_a_host": 3600 * images / count * feed.image_kb / 1e6,
        "to_devices_gb_an_hour_a_host": 3600 * batch["bytes"] / step / count / 1e9,
        "checkpoint_gb": state["bytes"] / 1e9,
        "checkpoints_gb_an_hour": saves * state["bytes"] / 1e9,
    }


def whole(step: float, steps: int, devices: int, price: float) -> dict[str, float]:
    """Of the recipe; `price` is that of a device for an hour, 0 if it is not known."""
    hours = step * steps / 3600
    found = {"steps": steps, "days": hours / 24, "device_hours": hours * devices}
    return found | ({"cost": hours * devices * price} if price else {})
