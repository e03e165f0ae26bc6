"""The devices that a step can be compiled for, and what is published of each."""

from typing import NamedTuple

from beit_jax.lookup import lookup


class Target(NamedTuple):
    """One device: a TPU chip, a card, a core. Dense products; one way, not both."""

    platform: str  # as JAX calls it
    memory: float  # GiB, all of it
    bfloat16: float  # 1e12 operations a second, of products of bfloat16
    float32: float  # of float32 as XLA shortens it unless told otherwise
    highest: float  # of float32 at precision "highest"
    bandwidth: float  # GB/s of its memory
    link: float  # GB/s that it sends to other devices
    far: float  # the same, where they are at other hosts
    host: int  # devices of a host

    @property
    def usable(self) -> float:
        """GiB for a program: not what CUDA and NCCL keep of a card for themselves."""
        return self.memory * (0.92 if self.platform == "cuda" else 1)

    def rate(self, precision: str) -> float:
        """Operations a second; `precision` is as summary.py tells them."""
        return 1e12 * getattr(self, precision)


# The link of a TPU is one axis of its torus both ways, two of its ports: a ring along a
# mesh axis needs no more. "highest" takes six passes of bfloat16 on a TPU, and the
# vector units of a card; what is shortened is bfloat16 on a TPU and TF32 on a card.
# fmt: off
TARGETS = {
    # docs.cloud.google.com/tpu/docs/v4, v5e (a program gets 15.75), v5p, v6e
    "v4": Target("tpu", 32, 275, 275, 275 / 6, 1228, 100, 100, 4),
    "v5e": Target("tpu", 15.75, 197, 197, 197 / 6, 819, 100, 100, 4),
    "v5p": Target("tpu", 95, 459, 459, 459 / 6, 2765, 200, 200, 4),
    "v6e": Target("tpu", 32, 918, 918, 918 / 6, 1638, 200, 200, 4),
    # NVIDIA's data sheets of the SXM modules; memory as the driver tells it; NVLink,
    # and a network adapter for each card as in DGX systems: 200 or 400 Gb/s
    "a100": Target("cuda", 79.2, 312, 156, 19.5, 2039, 300, 25, 8),
    "h100": Target("cuda", 79.1, 989, 494, 67, 3350, 450, 50, 8),
    "h200": Target("cuda", 141.0, 989, 494, 67, 4800, 450, 50, 8),
    "b200": Target("cuda", 178.3, 2250, 1125, 75, 7700, 900, 50, 8),
    # a core of a Xeon with AMX, measured on two: products of benchmarks/, memory copied
    "cpu": Target("cpu", 8, 0.8, 0.14, 0.14, 12, 12, 12, 1024),
}
# fmt: on


class Place(NamedTuple):
    """What --on names, NAME:SHAPE."""

    name: str
    shape: tuple[int, ...]
    target: Target

    def __str__(self) -> str:
        return f"{self.name}:{'x'.join(map(str, self.shape))}"


def find(on: str) -> Place:
    """`v5e:4x8`, `h100:16`, `cpu:8` -> the place.

    Raises:
      ValueError: no such device, or a shape that is none.
    """
    name, _, shape = on.partition(":")
    target = lookup(TARGETS, name, "beit_jax.ahead.targets")
    sides = shape.split("x")
    flat = target.platform != "tpu"
    if not all(side.isdecimal() and int(side) for side in sides) or (
        flat and len(sides) > 1
    ):
        example = "8" if flat else "2x2x1" if name in ("v4", "v5p") else "4x8"
        raise ValueError(
            f"--on={on!r} must say how many: {name}:{example}, say"
            + (" (chips along each side of the torus)" if not flat else "")
        )
    place = Place(name, tuple(map(int, sides)), target)
    if target.platform == "cuda" and place.shape[0] > target.host:
        _check_hosts(place)
    return place


def _check_hosts(place: Place) -> None:
    (cards,), host = place.shape, place.target.host
    if cards % host:
        raise ValueError(
            f"--on={place}: beyond one host of {host} the cards must fill hosts; take "
            f"{place.name}:{cards // host * host + host}"
        )
