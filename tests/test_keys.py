"""docs/keys.md tells every key that a config may have, as the code has it today."""

import pathlib

import pytest
from ml_collections import ConfigDict

from beit_jax import config as config_lib
from beit_jax import keys, lookup, shipped
from beit_jax.optim.optimizers import OPTIMIZERS
from beit_jax.optim.schedules import SCHEDULES
from beit_jax.tasks import TASKS

ROOT = pathlib.Path(__file__).parents[1]


def test_the_page_is_what_the_code_says():
    page = (ROOT / "docs" / "keys.md").read_text(encoding="utf-8")
    assert page == keys.page(), "run python -m beit_jax.keys > docs/keys.md"


def test_every_table_and_every_key_has_a_meaning():
    for title, told, rows in keys.tables():
        assert told, title
        for row in rows:
            assert len(row.meaning) > 3, f"{title}: {row.path}"
            assert row.kind or row.path == "KEY", f"{title}: {row.path}"


def test_all_that_a_config_can_name_has_a_table():
    titles = {title for title, _, _ in keys.tables()}
    for path, table in keys.sections().items():
        for name, factory in table.entries.items():
            assert f"## `{path}`: `{name}`" in titles
            rows = keys._of(factory, table)
            assert {r.path for r in rows} == {*lookup.settings(factory, table.given)}
    assert {*TASKS} <= {*keys.sections()["task"].entries}
    assert {*SCHEDULES} <= {*keys.sections()["optim.schedule"].entries}
    assert all(f"### `optim.name`: `{name}`" in titles for name in OPTIMIZERS)


def leaves(section: ConfigDict, prefix: str = ""):
    for key, value in section.items():
        if isinstance(value, ConfigDict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


@pytest.mark.parametrize("name", shipped.names())
def test_no_recipe_has_a_key_that_is_not_told(name):
    told = {row.path for _, _, rows in keys.tables() for row in rows} | {"name"}
    for path in leaves(config_lib.load(name, "tiny")):
        assert path in told or path.split(".")[-1] in told, path


def test_a_docstring_and_a_comment_tell_of_a_setting():
    def brew(
        leaves: int,  # of tea
        # until it is drunk
        minutes: float = 3.0,
        hot: bool = True,
        sweet: bool = False,
    ):
        """Tea.

        Args:
          hot, sweet: as one likes it,
            or not.

        Raises:
          ValueError: never.
        """

    told = {"leaves": "of tea", "minutes": "until it is drunk"}
    both = "as one likes it, or not."
    assert keys.meanings(brew) == told | {"hot": both, "sweet": both}
