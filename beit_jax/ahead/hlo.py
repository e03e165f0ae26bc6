"""Compiled programs as XLA prints them: operations, and how often each runs."""

import functools
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) .*\{$")
_LINE = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_ON_CHIP = re.compile(r"S\([1-9]")  # a memory space that is not the device's large one
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CALLED = re.compile(
    r"\b(body|condition|calls|to_apply|called_computations|branch_computations|"
    r"true_computation|false_computation)=(\{[^}]*\}|%?[\w.\-]+)"
)
# Of what these call, every element is a call: no operations of the program.
_APPLY = ("all-reduce", "map", "reduce", "scatter", "select-and-scatter", "sort")


class Operation(NamedTuple):
    """One line of a computation."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    rest: str  # attributes
    root: bool  # whether it gives the computation's result

    @property
    def calls(self) -> list[tuple[str, str]]:
        """(as what, computation) of each that it calls."""
        if self.opcode.startswith(_APPLY):
            return []
        return [
            (role, name)
            for role, names in _CALLED.findall(self.rest)
            for name in re.findall(r"[\w.\-]+", names)
        ]


Computation = dict[str, Operation]


def size(shape: str, on_chip: bool = True) -> int:
    """Bytes of all arrays in a shape as XLA writes it; without padding to tiles.

    Args:
      on_chip: count those in a memory of the chip's own (a TPU's VMEM), too.
    """
    total = 0
    for kind, sides, layout in _ARRAY.findall(shape):
        if on_chip or not _ON_CHIP.search(layout):
            total += _bits(kind) * math.prod(int(n) for n in sides.split(",") if n)
    return total // 8


def _bits(kind: str) -> int:
    if kind in ("token", "opaque"):
        return 0
    width = re.search(r"\d+", kind)  # bf16, f32, u8, f8e4m3fn
    return int(width[0]) if width else 8  # pred


class Program:
    """A program's computations, by name.

    Attributes:
      entry: the name of the one that runs first.
      unknown: loops of which it is not told how often they turn; each counts as one.
    """

    def __init__(self, text: str):
        self.computations: dict[str, Computation] = {}
        self.entry, self.unknown = "", []
        inside: Computation = {}
        for line in text.splitlines():
            if found := _LINE.match(line):
                operation = _operation(*found.groups())
                inside[operation.name] = operation
            elif head := _HEAD.match(line):
                inside = self.computations.setdefault(head[2], {})
                self.entry = head[2] if head[1] else self.entry

    @functools.cached_property
    def times(self) -> Counter[str]:
        """How often each computation runs in one run of the program."""
        found: Counter[str] = Counter()
        self._walk(self.entry, 1, found)
        return found

    def _walk(self, name: str, times: int, found: Counter[str]) -> None:
        found[name] += times
        for operation in self.computations[name].values():
            turns = self._turns(operation) if operation.opcode == "while" else 1
            for _, called in operation.calls:
                self._walk(called, times * turns, found)

    def _turns(self, loop: Operation) -> int:
        """As the compiler notes it, or the one number that its condition knows."""
        if told := _TRIPS.search(loop.rest):
            return int(told[1])
        condition = dict(loop.calls)["condition"]
        limits = {
            int(operation.operands[0])
            for operation in self.computations[condition].values()
            if operation.opcode == "constant" and operation.operands[0].isdecimal()
        }
        if len(limits) == 1:
            return limits.pop()
        self.unknown.append(loop.name)
        return 1

    @functools.cached_property
    def fused(self) -> set[str]:
        """Computations whose results stay within the operation that calls them."""
        found, pending = set(), []
        for inside in self.computations.values():
            for operation in inside.values():
                if operation.opcode in ("fusion", "custom-call"):
                    pending += operation.calls
        while pending:
            _, name = pending.pop()
            if name not in found:
                found.add(name)
                for operation in self.computations[name].values():
                    pending += operation.calls
        return found

    def running(self) -> Iterator[tuple[str, Computation, Operation, int]]:
        """Every operation, its computation and that one's name; how often it runs."""
        for name, times in self.times.items():
            inside = self.computations[name]
            for operation in inside.values():
                yield name, inside, operation, times


def _operation(root: str | None, name: str, text: str) -> Operation:
    shape, text = _split(text, " ")
    opcode, _, text = text.strip().partition("(")
    inner, rest = _split("(" + text, "")
    inner = inner[1:-1]
    # Some versions print each operand's shape before it.
    operands = re.findall(r"%([\w.\-]+)", inner) or [inner]
    return Operation(name, shape, opcode, tuple(operands), rest, bool(root))


def _split(text: str, end: str) -> tuple[str, str]:
    """The text up to the parenthesis that closes its first, or up to `end`."""
    if not text.startswith("("):
        head, _, rest = text.partition(end)
        return head, rest
    depth = 0
    for at, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if not depth:
            return text[: at + 1], text[at + 1 :]
    return text, ""
