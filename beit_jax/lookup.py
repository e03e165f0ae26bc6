"""Looks names up in the packages' explicit tables and checks their settings."""

import difflib
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar

from ml_collections import ConfigDict

T = TypeVar("T")
LINEN = ("name", "parent")  # fields of every Linen module, not settings
# What a setting can be, and what a person calls it; an int is a float too.
KINDS = {kind: kind.__name__ for kind in (int, float, bool, str, tuple, list)}
_PLAIN = (*KINDS,)
KINDS |= {Mapping: "section", types.NoneType: "None"}


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` when a known name is close to `name`, else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def lookup(table: Mapping[str, T], name: str, where: str) -> T:
    """The entry of `table` called `name`.

    Raises:
      ValueError: there is none; says what `where` (`beit_jax.targets`, say) has.
    """
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"no {name!r} in {where}; it has {', '.join(sorted(table))}")
    return table[name]


def has_type(value: Any, wanted: type) -> bool:
    """Whether a setting may be used where `wanted` is asked for (an int is a float)."""
    if wanted is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if wanted is Mapping:
        return isinstance(value, (Mapping, ConfigDict)) or value == ()
    return isinstance(value, (list, tuple) if wanted in (list, tuple) else wanted)


def kinds(hint: Any) -> dict[type, Any]:
    """Kind -> its Range, or None: what an annotation of a setting lets it be.

    `Annotated[int, Range(1)] | None` is {int: Range(1), NoneType: None}.
    """
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    found = {}
    for part in typing.get_args(hint) if union else (hint,):
        limits = None
        if typing.get_origin(part) is Annotated:
            part, limits = typing.get_args(part)
        found[typing.get_origin(part) or part] = limits
    return found


def misfit(value: Any, hint: Any) -> str:
    """What a value "must be", which it is not; nothing if it is as annotated."""
    wanted = kinds(hint)
    if not wanted.keys() <= KINDS.keys():
        return ""
    for kind, limits in wanted.items():
        if has_type(value, kind):
            return "" if limits is None or value in limits else f"must be {limits}"
    return "must be of type " + " or ".join(KINDS[kind] for kind in wanted)


class Table(NamedTuple):
    """What a section's `name` may be, and what of it is none of its settings.

    Attributes:
      given: what the code gives to those that take it.
    """

    entries: Mapping[str, Callable]
    given: Collection[str] = ()


def settings(factory: Callable, given: Collection[str] = ()) -> dict[str, Any]:
    """Setting -> its default, or `inspect.Parameter.empty`, of what `call` calls."""
    takes = inspect.signature(factory).parameters
    return {k: p.default for k, p in takes.items() if k not in {*given, *LINEN}}


def demand(where: str, rules: Mapping[str, bool]) -> None:
    """Raises ValueError for the first rule that does not hold, behind `where`."""
    for rule, holds in rules.items():
        if not holds:
            raise ValueError(f"{where} {rule}")


def completed(section: Mapping[str, Any], table: Table) -> dict[str, Any]:
    """The section with all settings that it leaves to their defaults.

    Not with those that a config cannot hold, a function say; and as it is where its
    name is none of the table's.
    """
    section = dict(section)
    name = section.get("name")
    if name not in table.entries:
        return section
    free = settings(table.entries[name], table.given).items()
    defaults = {k: v for k, v in free if v is None or isinstance(v, _PLAIN)}
    return {"name": name, **defaults, **section}


def annotations(factory: Callable) -> dict[str, Any]:
    """Name -> annotation of what a function or a class takes, ranges and all."""
    made = inspect.isclass(factory) and not issubclass(factory, tuple)
    return typing.get_type_hints(
        factory.__init__ if made else factory, include_extras=True
    )


def call(
    factory: Callable[..., T], settings: Mapping[str, Any], where: str, **given: Any
) -> T:
    """Calls `factory` with `settings` from a config and with what the code gives.

    `given` is passed as far as the factory takes it; settings must all fit.

    Raises:
      ValueError: a setting that `factory` does not take, or of another type, or out of
        the range that its annotation tells, or a required one that is missing; names
        it, `where`, and the nearest valid one.
    """
    takes = inspect.signature(factory).parameters
    free = {k: p for k, p in takes.items() if k not in {*given, *LINEN}}
    hints = annotations(factory)
    for key, value in settings.items():
        if key not in free:
            raise ValueError(
                f"{where} takes no setting {key!r}{nearest(key, free)} "
                f"(it takes {', '.join(sorted(free)) or 'none'})"
            )
        if problem := misfit(value, hints.get(key)):
            raise ValueError(f"{where}: {key}={value!r} {problem}")
    for key, parameter in free.items():
        if parameter.default is parameter.empty and key not in settings:
            raise ValueError(f"{where} needs a setting {key!r}")
    return factory(**settings, **{k: v for k, v in given.items() if k in takes})


def build(
    table: Mapping[str, Callable[..., T]],
    spec: Mapping[str, Any],
    where: str,
    **given: Any,
) -> T:
    """Calls the table's entry `spec["name"]` with the rest of `spec` and `given`.

    Raises:
      ValueError: no name, no such entry, or settings that do not fit (see `call`).
    """
    if isinstance(spec, str):
        raise ValueError(f"{where}: {spec!r} must be a section, {{'name': {spec!r}}}")
    settings = dict(spec)
    if "name" not in settings:
        raise ValueError(f"{where} needs a name: one of {', '.join(sorted(table))}")
    name = settings.pop("name")
    return call(lookup(table, name, where), settings, f"{where} {name!r}", **given)


def needed(package: str, extra: str) -> Any:
    """A package that only some need; raises ValueError with the way to it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(
            f"this needs the package {package}: pip install beit_jax[{extra}]"
        ) from error
