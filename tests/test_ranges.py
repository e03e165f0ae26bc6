"""Every number that a person can set has a range, told where it is declared."""

import inspect
import math
import re

import pytest

from beit_jax import config, lookup
from beit_jax.data import frames, settings, sources
from beit_jax.data.ops import masking
from beit_jax.heads import HEADS
from beit_jax.models.backbones import BACKBONES
from beit_jax.models.tokenizers import TOKENIZERS
from beit_jax.ranges import RANGES, Range
from beit_jax.run import evaluator
from beit_jax.targets import TARGETS
from beit_jax.tasks import TASKS
from beit_jax.tasks.losses import LOSSES
from beit_jax.tasks.objectives import OBJECTIVES

TABLES = {
    "tasks": TASKS,
    "losses": LOSSES,
    "targets": TARGETS,
    "heads": HEADS,
    "backbones": BACKBONES,
    "tokenizers": TOKENIZERS,
    "objectives": OBJECTIVES,
    "frames": frames.FRAMES,
    "masks": masking.MASKS,
    "sources": sources.SOURCES,
    "augment": {"augment": settings.Augment},
    "evals": {"evals": evaluator.split},
}
BY_CODE = {"batch"}  # numbers that no config says


@pytest.mark.parametrize("table", TABLES)
def test_every_number_in_a_table_has_a_range(table):
    without = [
        f"{name}.{key}"
        for name, factory in TABLES[table].items()
        for key, hint in lookup.annotations(factory).items()
        for kind, limits in lookup.kinds(hint).items()
        if kind in (int, float) and limits is None and key not in BY_CODE
    ]
    assert not without


@pytest.mark.parametrize("table", TABLES)
def test_defaults_are_within_their_ranges(table):
    for factory in TABLES[table].values():
        hints = lookup.annotations(factory)
        for key, parameter in inspect.signature(factory).parameters.items():
            if key in hints and parameter.default is not parameter.empty:
                assert not lookup.misfit(parameter.default, hints[key]), key


def numbers(section, prefix=""):
    for key in section:
        if hasattr(section[key], "items"):
            yield from numbers(section[key], f"{prefix}{key}.")
        elif section.get_type(key) in (int, float):
            yield prefix + key


def test_every_number_of_the_defaults_has_a_range():
    elsewhere = tuple(f"{name}." for name in (*config.OPEN, "data.augment"))
    found = {key for key in numbers(config.defaults()) if not key.startswith(elsewhere)}
    assert found == RANGES.keys()


@pytest.mark.parametrize("path", RANGES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -2.0, 1e300])
def test_what_is_no_number_or_out_of_range_is_refused(path, value):
    limits = RANGES[path]
    *sections, key = path.split(".")
    changes = {key: value}
    for section in reversed(sections):
        changes = {section: changes}
    if value in limits:
        assert math.isfinite(value)
        return
    named = re.escape(f"{path}={value} must be")
    with pytest.raises(ValueError, match=named):
        config.new(**changes)


@pytest.mark.parametrize(
    "limits, rule, inside, outside",
    [
        (Range(0, 1), "in 0 .. 1", [0, 1, 0.5], [-1e-9, 1.1, math.nan]),
        (Range(0, below=1), "at least 0 and below 1", [0, 0.999], [1, -1]),
        (Range(above=0, high=2), "above 0 and at most 2", [1e-9, 2], [0, 3]),
        (Range(3), "at least 3", [3, 1e300], [2, math.inf]),
        (Range(hint="or so"), r"a finite number (or so)", [-1e300], [-math.inf]),
    ],
)
def test_a_range_knows_its_ends_and_tells_them(limits, rule, inside, outside):
    assert str(limits) == rule
    assert all(value in limits for value in inside)
    assert not any(value in limits for value in outside)
