"""What was found of a step, as numbers with names and as text for a person."""

import re
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_GIB = 2**30
_COLUMNS = ("needed", "arguments", "temporaries", "peak")
_PARTS = ("products", "memory", "network")  # of a step's time


def refusal(error: str) -> str:
    """The compiler's sentence on memory, out of its message."""
    found = re.search(r"Used [^.]*\.\d+\w? of .*?hbm|[^\n]*[Ee]xceed[^\n]*", error)
    return (found[0] if found else error.split("\n")[0]).strip()


def memory(analysis) -> dict[str, int]:
    """Bytes by kind of one device; "needed" is what must be free at once.

    The temporaries are one piece, no part of which serves for anything else: more is
    needed than the most that is in use at a time, "peak".
    """
    found = {
        "arguments": analysis.argument_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
        "outputs": analysis.output_size_in_bytes,
        "aliased": analysis.alias_size_in_bytes,
        "code": analysis.generated_code_size_in_bytes,
        "peak": analysis.peak_memory_in_bytes,
    }
    new = found["outputs"] - found["aliased"]
    needed = found["arguments"] + found["temporaries"] + new + found["code"]
    return found | {"needed": needed}


def tell(found: Mapping[str, Any]) -> None:
    """Prints a report."""
    console = Console(highlight=False, width=100)
    for table in _tables(found):
        console.print(table)
    for sentence in _sentences(found):
        console.print(sentence, markup=False, soft_wrap=True)


def _tables(found: Mapping[str, Any]):
    tried = Table("tried", "fits", "needed, GiB", "arguments", "temporaries", "peak")
    tried.title = f"{found['on']}, {found['memory_gib']:g} GiB a device"
    for one in found["tried"]:
        sizes = one.get("memory", {})
        row = [_gib(sizes.get(kind)) for kind in _COLUMNS]
        tried.add_row(one["change"] or "as asked", "yes" if one["fits"] else "no", *row)
    yield tried
    if "seconds" not in found:
        return
    sends = Table("a step sends", "along", "times", "GB of arrays", "GB from a device")
    for one in found["collectives"]:
        sends.add_row(
            one["kind"],
            " ".join(one["axes"]) + (", between hosts" if one["beside"] else ""),
            str(one["count"]),
            _gb(one["bytes"]),
            _gb(one["sent"]),
        )
    yield sends
    yield _numbers(found)


def _numbers(found: Mapping[str, Any]) -> Table:
    times, host, run = found["seconds"], found["host"], found["run"]
    parts = (f"{part} {1e3 * times[part]:,.1f}" for part in _PARTS)
    flops = (f"{n / 1e12:,.2f} in {kind}" for kind, n in found["flops"].items())
    cost = f", costs {run['cost']:,.0f}" if "cost" in run else ""
    table = Table(show_header=False)
    for name, text in {
        "operations of a step": f"{', '.join(flops)}, 1e12",
        "memory traffic": f"{_gb(found['traffic_bytes'])} GB a device",
        "a step takes": f"{1e3 * times['step']:,.1f} ms ({', '.join(parts)})",
        "images": f"{host['images_per_second']:,.0f} a second, "
        f"{host['images_per_second_a_host']:,.0f} from each host of {host['hosts']}",
        "a host's input": f"{host['cores_a_host']:,.1f} cores; reads "
        f"{host['read_gb_an_hour_a_host']:,.0f} GB an hour and hands "
        f"{host['to_devices_gb_an_hour_a_host']:,.0f} to its devices",
        "checkpoints": f"{host['checkpoint_gb']:,.2f} GB each, "
        f"{host['checkpoints_gb_an_hour']:,.0f} GB an hour",
        "the recipe": f"{run['steps']:,} steps, {run['days']:,.2f} days, "
        f"{run['device_hours']:,.0f} hours of a device{cost}",
    }.items():
        table.add_row(name, text)
    return table


def _sentences(found: Mapping[str, Any]):
    for one in found["tried"]:
        if "refused" in one:
            yield f"refused: {one['change'] or 'as asked'}: {one['refused']}"
    if loops := found.get("loops_of_unknown_length"):
        yield f"counted once, for their length is not told: {', '.join(loops)}"
    for sentence in found.get("assumed", ()):
        yield f"assumed: {sentence}"
    fitting = [one["change"] for one in found["tried"] if one["fits"]]
    if found["fits"]:
        yield f"fits {found['on']} as asked"
    elif fitting:
        yield f"does not fit {found['on']} as asked; it would with {fitting[0]}"
    else:
        yield f"does not fit {found['on']}"


def _gib(size: int | None) -> str:
    return "" if size is None else f"{size / _GIB:.2f}"


def _gb(size: float) -> str:
    return f"{size / 1e9:,.3f}"
