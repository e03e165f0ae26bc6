"""Bytes that a compiled program moves to and from the memory of its device."""

from beit_jax.ahead.hlo import Computation, Operation, Program, size

# They name memory, or wait for what another operation moves.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "iota"}
_FREE |= {"after-all", "partition-id", "replica-id", "opt-barrier", "while", "call"}
_FREE |= {"conditional", "async-start", "async-update", "async-done"}
_SLICES = ("dynamic-slice", "slice", "gather")  # read no more than they give
_SAME = ("bitcast", "reshape", "copy")  # within a fusion: the same bytes


def traffic(program: Program) -> int:
    """Bytes read and written in a step: operands and results of all operations.

    An estimate. Of a stack that a fusion takes a slice of, or fills one of, the slice
    counts. Caches are not known, nor padding to tiles.
    """
    return sum(
        times * _moved(program, inside, operation)
        for name, inside, operation, times in program.running()
        if name not in program.fused
    )


def _moved(program: Program, inside: Computation, operation: Operation) -> int:
    code = operation.opcode
    if code in _FREE or code.endswith("-done"):
        return 0
    given = [inside[name].shape for name in operation.operands if name in inside]
    if code == "fusion":
        ((_, called),) = operation.calls
        return _of_fusion(program.computations[called], operation, given)
    if code in _SLICES:
        return 2 * _far(operation.shape)
    if code == "dynamic-update-slice":
        return 2 * _far(given[1])
    return sum(map(_far, given)) + _far(operation.shape)


def _far(shape: str) -> int:
    return size(shape, on_chip=False)


def _of_fusion(body: Computation, operation: Operation, given: list[str]) -> int:
    """Bytes of the operands that it reads, and of the result that it writes."""
    total = 0
    for one in body.values():
        if one.opcode == "parameter":
            outside = given[int(one.operands[0])]
            total += min(_far(outside), _read(body, one))
    (root,) = (one for one in body.values() if one.root)
    return total + min(_far(operation.shape), _written(body, root))


def _read(body: Computation, source: Operation) -> int:
    """Bytes of `source` that the others of a fusion use."""
    total, whole = 0, size(source.shape)
    for user in body.values():
        if source.name not in user.operands:
            continue
        first = user.operands[0] == source.name
        if user.opcode in _SAME:
            total += _read(body, user)
        elif first and user.opcode in _SLICES:
            total += size(user.shape)
        elif not first or user.opcode != "dynamic-update-slice":  # which keeps the rest
            return whole
    return min(total, whole)


def _written(body: Computation, result: Operation) -> int:
    """Bytes of `result` that are new."""
    if result.opcode == "tuple":
        return sum(_written(body, body[name]) for name in result.operands)
    if result.opcode in _SAME:
        return _written(body, body[result.operands[0]])
    if result.opcode == "dynamic-update-slice":
        return size(body[result.operands[1]].shape)
    return size(result.shape)
