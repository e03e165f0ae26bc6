"""All keys of a config, with type, default and meaning: `python -m beit_jax.keys`.

Prints docs/keys.md. What a key means is read where its default is: the Args or
Attributes of a docstring, or the comment on its line or above it.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from beit_jax import config as config_lib
from beit_jax import lookup, tasks
from beit_jax.data.settings import Augment
from beit_jax.lookup import Table
from beit_jax.models.backbones import Shared
from beit_jax.optim import groups
from beit_jax.optim.optimizers import OPTIMIZERS
from beit_jax.ranges import RANGES
from beit_jax.run import evaluator, whole

TITLE = """\
# All keys of a config

Made from the code by `python -m beit_jax.keys > docs/keys.md`.

A recipe sets keys in `config.new(section={"key": value})`, the command line by
`--config.section.key=value`. A key without a default must be given. Keys of a section
with a `name` depend on it; each name has a table below.
"""
NO_DEFAULT = inspect.Parameter.empty


class Key(NamedTuple):
    """A row of the page."""

    path: str
    kind: str
    default: Any
    meaning: str

    def __str__(self) -> str:
        default = "" if self.default is NO_DEFAULT else f"`{_shown(self.default)}`"
        cells = f"`{self.path}`", self.kind, default, self.meaning
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def page() -> str:
    """The text of docs/keys.md."""
    parts = [TITLE]
    for title, told, rows in tables():
        head = "| key | type | default | meaning |\n|---|---|---|---|"
        table = "\n".join([head, *map(str, rows)]) if rows else "No settings."
        parts += [title, *([told] if told else []), table]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def tables() -> Iterator[tuple[str, str, list[Key]]]:
    """Title, what it is, and its keys, of each table of the page."""
    yield "## Every run", "What every config has.", list(_of_defaults())
    yield "### `data.augment`", _first(Augment), _of(Augment)
    for name, make in OPTIMIZERS.items():
        yield f"### `optim.name`: `{name}`", _first(make), []
    one = [Key("KEY", "", NO_DEFAULT, f"as in `optim`: {', '.join(groups.KEYS)}")]
    prefix = "what the paths of its parameters begin with, several with commas between"
    one.insert(0, Key("prefix", "str", NO_DEFAULT, prefix))
    yield "### `optim.groups.NAME`", "Parameters with settings of their own.", one
    yield "### `evals.NAME`", _first(evaluator.split), _of(evaluator.split)
    shared = {f"{key}.NAME": part for key, (_, part) in tasks.SEVERAL.items()}
    for key, kind in (tasks.SETTINGS | shared).items():
        yield f"### `task.{key}`", _first(kind), _of(kind)
    for path, table in sections().items():
        for name, factory in table.entries.items():
            told = _first(factory)
            yield f"## `{path}`: `{name}`", told, _of(factory, table)
        if path == "model":
            yield "## `model`: all of them", _first(Shared), _of(Shared)


def sections() -> dict[str, Table]:
    """The sections that name something, "data.frame, data.eval_frame" say -> table."""
    networks = whole.BACKBONE.entries | whole.TOKENIZER.entries
    pairs = [("task", whole.TASK)]
    pairs += [(f"task.{key}", table) for key, table in tasks.SECTIONS.items()]
    pairs += [(f"task.{key}.NAME", table) for key, (table, _) in tasks.SEVERAL.items()]
    given = {*whole.BACKBONE.given, *whole.TOKENIZER.given}
    pairs += [("model", Table(networks, given))]
    pairs += [(f"data.{key}", whole.SOURCE) for key in ("source", "eval_source")]
    alike: dict[int, tuple[list[str], Table]] = {}
    for path, table in [*pairs, *whole.PLAIN.items()]:
        alike.setdefault(id(table), ([], table))[0].append(path)
    return {", ".join(paths): table for paths, table in alike.values()}


def _of_defaults() -> Iterator[Key]:
    defaults, told = config_lib.defaults(), _comments(config_lib.defaults)

    def walk(section: ConfigDict, prefix: str) -> Iterator[Key]:
        for key in section:
            path, value = prefix + key, section.get(key)
            meaning = told.get(path, "")
            if not isinstance(value, ConfigDict):
                limits = RANGES.get(path)
                kind = section.get_type(key).__name__
                yield Key(path, f"{kind}, {limits}" if limits else kind, value, meaning)
            elif path in config_lib.OPEN or path == "data.augment":
                name = value.get("name", NO_DEFAULT)
                yield Key(path, "section", name, meaning)
            else:
                yield from walk(value, f"{path}.")

    return walk(defaults, "")


def _of(factory: Callable, table: Table | None = None) -> list[Key]:
    """The settings of what a section's name names."""
    told, hints = meanings(factory), lookup.annotations(factory)
    return [
        Key(key, _kind(hints.get(key)), default, told.get(key, ""))
        for key, default in lookup.settings(
            factory, table.given if table else ()
        ).items()
    ]


def _kind(hint: Any) -> str:
    """An annotation in words: "int, at least 1, or None"."""
    words = []
    for kind, limits in lookup.kinds(hint).items():
        name = lookup.KINDS.get(kind, getattr(kind, "__name__", str(kind)))
        words.append(f"{name}, {limits}" if limits else name)
    return " or ".join(words)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)


def _first(factory: Callable) -> str:
    """The first sentences of a docstring: what stands before an empty line."""
    return " ".join((inspect.getdoc(factory) or "").partition("\n\n")[0].split())


def meanings(factory: Callable) -> dict[str, str]:
    """Setting -> what its docstring and its comment say of it."""
    told = _comments(factory)
    places = [factory, *([factory.__init__] if inspect.isclass(factory) else [])]
    for place in places:
        told |= _arguments(inspect.getdoc(place) or "")
    for name, text in told.items():
        if other := re.fullmatch(r"see `(\w+)`\.", text):
            told[name] = meanings(inspect.getmodule(factory).__dict__[other[1]])[name]
    return told


def _arguments(docstring: str) -> dict[str, str]:
    """Name -> text of the entries below Args or Attributes; several may share one."""
    block = re.search(
        r"^(?:Args|Attributes):\n((?:  .*\n?|\n)+)", docstring, re.MULTILINE
    )
    entries = re.findall(
        r"^(\w+(?:, \w+)*): ?((?:.*\n?)(?:^(?:  .*)?\n?)*)",
        textwrap.dedent(block[1]) if block else "",
        re.MULTILINE,
    )
    return {
        name: " ".join(text.split())
        for names, text in entries
        for name in names.split(", ")
    }


def _comments(factory: Callable) -> dict[str, str]:
    """Name of a parameter or field, or path of a key in a dict -> its comment."""
    lines = textwrap.dedent(inspect.getsource(factory)).splitlines()
    found = {}
    for path, number in _places(ast.parse("\n".join(lines)), ""):
        above, first = [], number - 1
        while first > 0 and lines[first - 1].lstrip().startswith("#"):
            first -= 1
            above.insert(0, lines[first].lstrip("# "))
        beside = re.search(r"\s# (.*)$", lines[number - 1])
        text = " ".join([*above, *([beside[1]] if beside else [])])
        if text:
            found.setdefault(path, text)
    return found


def _places(node: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
    """Path and line of all that may have a comment."""
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant):
                yield f"{prefix}{key.value}", key.lineno
                yield from _places(value, f"{prefix}{key.value}.")
        return
    if isinstance(node, ast.arg):
        yield node.arg, node.lineno
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id, node.lineno
    for child in ast.iter_child_nodes(node):
        yield from _places(child, prefix)


if __name__ == "__main__":
    print(page(), end="")
