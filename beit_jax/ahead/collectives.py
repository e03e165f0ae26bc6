"""What a compiled program sends between devices."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from beit_jax.ahead.hlo import Computation, Operation, Program, size

# Kind -> of n devices and what each puts in: the whole, and what each one sends.
# Around a ring, as the compilers do it for what is large.
_KINDS: dict[str, Callable[[int, float], tuple[float, float]]] = {
    "all-reduce": lambda n, given: (given, 2 * given * (n - 1) / n),
    "all-gather": lambda n, given: (given * n, given * (n - 1)),
    "reduce-scatter": lambda n, given: (given, given * (n - 1) / n),
    "all-to-all": lambda n, given: (given, given * (n - 1) / n),
    "ragged-all-to-all": lambda n, given: (given, given * (n - 1) / n),
    "collective-permute": lambda n, given: (given, given),
    "collective-broadcast": lambda n, given: (given, given),
}
# The three ways to write which devices take part together: listed, or counted row by
# row in an array that is turned, or that of a mesh of XLA's own along some axes.
_LISTED = re.compile(r"(?:replica_groups|source_target_pairs)=\{((?:\{[\d,]*\},?)*)\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(
    r"replica_groups=mesh\[(.*?)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? "
    r"\{(.*?)\}"
)
_AXIS = re.compile(r"'(\w+)'(?::\((\d+)\)(\d+))?")  # perhaps some inner part of one
_CHANNEL = re.compile(r"channel_id=(\d+)")


class Collective(NamedTuple):
    """Operations of a kind over the same devices, of one step.

    Attributes:
      axes: of the mesh, along which it goes.
      beside: members of a group that share a host; 0: all do.
      count: how often it is done.
      bytes: on one device, of all of them: what is reduced, what is gathered.
      sent: bytes that one device sends.
    """

    kind: str
    axes: tuple[str, ...]
    beside: int
    count: int
    bytes: int
    sent: float


def collectives(
    program: Program, mesh: Mapping[str, int], hosts: np.ndarray
) -> list[Collective]:
    """All of a step, those that send the most first.

    Args:
      mesh: axis -> size; the program's devices count along it, row by row.
      hosts: (devices,) the host of each.
    """
    found: dict[tuple, Collective] = {}
    for kind, inside, operation, times in _operations(program):
        groups = members(operation, len(hosts))
        if groups.shape[1] < 2:
            continue
        whole, sent = _KINDS[kind](groups.shape[1], _given(inside, operation))
        key = kind, _axes(groups, mesh), _beside(hosts[groups])
        *_, count, total, all_sent = found.get(key, (0, 0, 0.0))
        found[key] = Collective(
            *key,
            count + times,
            total + round(times * whole),
            all_sent + times * sent,
        )
    return sorted(found.values(), key=lambda one: -one.sent)


def _operations(
    program: Program,
) -> Iterator[tuple[str, Computation, Operation, int]]:
    """Those that send, each once, with kind, computation and how often they run."""
    seen = set()
    for name, inside, operation, times in program.running():
        kind = operation.opcode.removesuffix("-start")
        if kind not in _KINDS:
            continue
        if name in program.fused:
            # A TPU has it in each fusion during which it goes on.
            channel = _CHANNEL.search(operation.rest)
            if channel and channel[1] in seen:
                continue
            seen.add(channel[1] if channel else operation.name)
            if name.startswith("all-reduce-scatter"):  # of which it keeps its part
                kind = "reduce-scatter"
        yield kind, inside, operation, times


def _given(inside: Computation, operation: Operation) -> int:
    """Bytes that a device puts in."""
    return sum(size(inside[name].shape) for name in operation.operands)


def members(operation: Operation, devices: int) -> np.ndarray:
    """(groups, members) the devices that take part together."""
    text = operation.rest
    if found := _IOTA.search(text):
        shape, sides, order = map(_numbers, found.groups(""))
        return _counted(sides, order).reshape(shape)
    if found := _MESH.search(text):
        return _of_mesh(*found.groups(""))
    if found := _LISTED.search(text):
        groups = re.findall(r"\{([\d,]*)\}", found[1])
        return np.array([_numbers(group) for group in groups] or [range(devices)])
    raise AssertionError(f"no devices in {text!r}")


def _of_mesh(mesh: str, sides: str, order: str, along: str) -> np.ndarray:
    sizes = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", mesh)}
    count = math.prod(sizes.values())
    devices = _counted(_numbers(sides) or [count], _numbers(order)).reshape(-1)
    asked = {
        axis: (int(before or 1), int(part or sizes[axis]))
        for axis, before, part in _AXIS.findall(along)
    }
    shape, inner = [], []
    for axis, length in sizes.items():
        before, part = asked.get(axis, (1, 1))
        inner.append(len(shape) + 1)
        shape += [before, part, length // before // part]
    devices = np.moveaxis(devices.reshape(shape), inner, range(-len(inner), 0))
    return devices.reshape(-1, math.prod(shape[at] for at in inner))


def _counted(sides: list[int], order: list[int]) -> np.ndarray:
    return np.arange(math.prod(sides)).reshape(sides).transpose(order or None)


def _axes(groups: np.ndarray, mesh: Mapping[str, int]) -> tuple[str, ...]:
    """Those along which the members of a group differ."""
    along = np.unravel_index(groups, tuple(mesh.values()))
    return tuple(
        axis for axis, at in zip(mesh, along, strict=True) if np.ptp(at, axis=1).any()
    )


def _beside(hosts: np.ndarray) -> int:
    """Of (groups, members) hosts: the least that a group has of one; 0: it has one."""
    if not np.ptp(hosts, axis=1).any():
        return 0
    return min(int(np.unique(group, return_counts=True)[1].min()) for group in hosts)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]
