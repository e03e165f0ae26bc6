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
    return flops_by_precision(trace(*args).jaxpr.jaxpr).total()


def flops_by_precision(jaxpr) -> Counter[str]:
    """The same of traced equations, as "bfloat16", "float32" and "highest".

    "highest" are float32 products of that precision, others XLA may shorten.
    """
    return sum(map(_equation_flops, jaxpr.eqns), Counter())


def _equation_flops(equation) -> Counter[str]:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left = equation.invars[0].aval.shape
        depth = math.prod(left[axis] for axis in contracted)
        flops = 2 * depth * math.prod(equation.outvars[0].aval.shape)
        return Counter({_precision(equation): flops})
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[parameters["dimension_numbers"].rhs_spec[0]]
        per_output = math.prod(kernel) // outputs
        flops = 2 * per_output * math.prod(equation.outvars[0].aval.shape)
        return Counter({_precision(equation): flops})
    inner = [
        flops_by_precision(getattr(sub, "jaxpr", sub))
        for value in parameters.values()
        for sub in (value if isinstance(value, (tuple, list)) else [value])
        if hasattr(sub, "eqns") or hasattr(sub, "jaxpr")
    ]
    if name == "cond":
        return max(inner, key=Counter.total, default=Counter())
    turns = parameters.get("length", 1) if name == "scan" else 1
    every = sum(inner, Counter())
    return Counter({kind: turns * flops for kind, flops in every.items()})


def _precision(equation) -> str:
    if equation.invars[0].aval.dtype.itemsize <= 2:
        return "bfloat16"
    highest = equation.params["precision"] == (jax.lax.Precision.HIGHEST,) * 2
    return "highest" if highest else "float32"


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
