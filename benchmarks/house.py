"""How the code is laid out, counted in its syntax trees; nothing of it is imported.

    python benchmarks/house.py [TREE ...]

Prints a markdown table with a column for each checkout (this one, unless some are
named): modules of every room, pairs of rooms that import each other, modules that make
a network of a checkpoint by themselves, long files and functions. What it takes to add
something, tests/test_adding.py shows: one file, and the lines that are counted here.
"""

import ast
import collections
import pathlib
import re
import statistics
import sys

HERE = pathlib.Path(__file__).parents[1]
READ = {"restore", "restore_params"}  # give a checkpoint's arrays
BUILD = {"tasks.build", "encoders.build"}  # give something that computes


def trees(root: pathlib.Path) -> dict[str, ast.Module]:
    """Path within the package -> syntax tree."""
    folder = root / "beit_jax"
    files = sorted(folder.rglob("*.py"))
    return {f.relative_to(folder).as_posix(): ast.parse(f.read_text()) for f in files}


def room(path: str) -> str:
    """`models/vit.py` -> models, `train.py` -> train."""
    return path.split("/")[0].removesuffix(".py")


def imported(tree: ast.Module) -> set[str]:
    """Dotted names below beit_jax."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {n.removeprefix("beit_jax.") for n in found if n.startswith("beit_jax.")}


def mutual(code: dict[str, ast.Module]) -> list[str]:
    """Pairs of rooms that import each other: arrows that go up."""
    arrows = {
        (room(path), room(name)) for path in code for name in imported(code[path])
    }
    return sorted(f"{a}-{b}" for a, b in arrows if a < b and (b, a) in arrows)


def called(tree: ast.Module) -> set[str]:
    return {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}


def doors(code: dict[str, ast.Module]) -> list[str]:
    """Modules that both read a checkpoint and build what computes with it."""
    found = []
    for path, tree in code.items():
        calls = called(tree)
        known = {name.split(".")[-1] for name in imported(tree)}
        here = (call.split(".") for call in calls)
        reads = [call for call in here if call[0] in known and call[-1] in READ]
        if reads and BUILD & calls and "checkpoint" not in path:
            found.append(path)
    return found


def functions(code: dict[str, ast.Module]) -> list[int]:
    """Lines of every function, docstrings included."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    every = (node for tree in code.values() for node in ast.walk(tree))
    return [n.end_lineno - n.lineno + 1 for n in every if isinstance(n, kinds)]


def additions(root: pathlib.Path) -> str:
    """The tables that the test of adding things gives a line to, from one file."""
    test = root / "tests" / "test_adding.py"
    lines = test.read_text() if test.exists() else ""
    return ", ".join(re.findall(r"^([A-Z]+)\[\"\w+\"\] = ", lines, re.M)) or "none"


def figures(root: pathlib.Path) -> dict[str, str]:
    code = trees(root)
    rooms = collections.Counter(room(path) for path in code if "/" in path)
    lengths = [
        path.read_text().count("\n") for path in (root / "beit_jax").rglob("*.py")
    ]
    sizes = functions(code)
    return {
        "modules at the top level": str(sum("/" not in path for path in code)),
        "modules of rooms": ", ".join(f"{k} {n}" for k, n in sorted(rooms.items())),
        "rooms that import each other": ", ".join(mutual(code)) or "none",
        "ways from a checkpoint to a network": ", ".join(doors(code)),
        "files; over 300 lines": f"{len(lengths)}; {sum(n > 300 for n in lengths)}",
        "median function; over 40 lines": (
            f"{statistics.median(sizes):g} lines; {sum(n > 40 for n in sizes)}"
        ),
        "added by one file, a line each": additions(root),
    }


def main() -> None:
    roots = [pathlib.Path(name) for name in sys.argv[1:]] or [HERE]
    columns = [figures(root) for root in roots]
    print("|", *(f" | {root.resolve().name}" for root in roots), "|")
    print("|---" * (1 + len(roots)) + "|")
    for name in columns[0]:
        print(f"| {name} |", " | ".join(column[name] for column in columns), "|")


if __name__ == "__main__":
    main()
