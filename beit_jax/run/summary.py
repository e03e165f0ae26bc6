"""What a run is made of, told before it starts: parameters and arithmetic."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from beit_jax.checkpoints.names import flatten

Tree = Any


def count_flops(function: Callable, *args: Any) -> int:
    """Floating-point operations of the matrix products and convolutions of a call.

    A multiplication and an addition count as two. Loops of known length (`scan`) count
    every turn, unlike XLA's own cost analysis; both branches of a condition count
    as the dearer one. `args` may be shapes.
    """
    # A step that is to be compiled anyway is traced once for both.
    trace = getattr(function, "trace", None) or jax.jit(function).trace
    return _jaxpr_flops(trace(*args).jaxpr.jaxpr)


def _jaxpr_flops(jaxpr) -> int:
    return sum(_equation_flops(equation) for equation in jaxpr.eqns)


def _equation_flops(equation) -> int:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left = equation.invars[0].aval.shape
        depth = math.prod(left[axis] for axis in contracted)
        return 2 * depth * math.prod(equation.outvars[0].aval.shape)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[parameters["dimension_numbers"].rhs_spec[0]]
        per_output = math.prod(kernel) // outputs
        return 2 * per_output * math.prod(equation.outvars[0].aval.shape)
    inner = [
        _jaxpr_flops(getattr(sub, "jaxpr", sub))
        for value in parameters.values()
        for sub in (value if isinstance(value, (tuple, list)) else [value])
        if hasattr(sub, "eqns") or hasattr(sub, "jaxpr")
    ]
    if name == "cond":
        return max(inner, default=0)
    return parameters.get("length", 1) * sum(inner) if name == "scan" else sum(inner)


def parameter_table(params: Tree, flops: dict[str, int]) -> str:
    """Parameters by module and operations by name, as text."""
    sizes = Counter()
    for path, leaf in flatten(params).items():
        parts = path.split("/")
        group = "/".join(parts[:3] if "blocks" in parts else parts[:2])
        sizes[group if len(parts) > 1 else parts[0]] += math.prod(leaf.shape)
    table = Table("parameters of", "count", "share", title="model")
    for column in table.columns[1:]:
        column.justify = "right"
    total = sum(sizes.values())
    for name, size in sizes.items():
        table.add_row(name, f"{size:,}", f"{100 * size / total:.1f} %")
    table.add_section()
    table.add_row("all", f"{total:,}", "")
    for name, count in flops.items():
        table.add_row(name, f"{count / 1e9:,.3f} GFLOP", "")
    console = Console(width=88, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()
