"""Modules that a recipe names are imported and found again; nobody else's are."""

import importlib
import json
import pathlib
import shutil
import sys

import pytest

from beit_jax import config as config_lib
from beit_jax import heads, modules
from beit_jax.evaluate import evaluate
from beit_jax.predict import predict
from beit_jax.train import train

HEAD = """
import pathlib

import flax.linen as nn

from beit_jax.heads import HEADS

with (pathlib.Path(__file__).parent / "imported").open("a") as file:
    file.write("x")


class Largest(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, features, *, train=False):
        return nn.Dense(self.classes, name="top")(features.last.patches.max(axis=1))


HEADS["largest"] = Largest
"""
RECIPE = """
from tests import tiny

def get_config(arg=""):
    config = tiny.config("classify", steps=1)
    config.modules, config.task.head = ("ours_of_tests.head",), {"name": "largest"}
    return config
"""
NAME = "ours_of_tests.head"


def forget() -> None:
    """As a new process begins."""
    for name in (NAME, "ours_of_tests"):
        sys.modules.pop(name, None)
    heads.HEADS.pop("largest", None)
    importlib.invalidate_caches()


def package(folder: pathlib.Path) -> pathlib.Path:
    """A folder with the module in it."""
    (folder / "ours_of_tests").mkdir(parents=True)
    (folder / "ours_of_tests" / "__init__.py").touch()
    (folder / "ours_of_tests" / "head.py").write_text(HEAD)
    return folder


def times_imported(folder: pathlib.Path) -> int:
    file = folder / "ours_of_tests" / "imported"
    return len(file.read_text()) if file.exists() else 0


@pytest.fixture
def ours(tmp_path, monkeypatch):
    """The folder with our module, in a home with nothing noted."""
    monkeypatch.setenv("BEIT_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "recipe.py").write_text(RECIPE)
    yield package(tmp_path / "lib")
    forget()


@pytest.fixture
def run(ours, tmp_path, monkeypatch):
    """(folder, work directory, metrics) of a run with our module, which then goes."""
    with monkeypatch.context() as here:
        here.syspath_prepend(ours)
        config = config_lib.load(tmp_path / "recipe.py")
        metrics = train(config, tmp_path / "run", quiet=True)
    forget()
    return ours, tmp_path / "run", metrics


def test_what_a_recipe_names_is_found_again_from_its_run(run, tmp_path):
    folder, workdir, metrics = run
    assert times_imported(folder) == 1
    assert evaluate(workdir) == metrics
    assert times_imported(folder) == 2
    assert config_lib.load(workdir / "config.json").modules == (NAME,)
    assert (
        train(config_lib.load(tmp_path / "recipe.py"), workdir, quiet=True) == metrics
    )


def test_a_checkpoint_from_elsewhere_imports_nothing(
    run, tmp_path, monkeypatch, capsys
):
    folder, workdir, _ = run
    monkeypatch.setenv("BEIT_JAX_CACHE", str(tmp_path / "of somebody else"))
    monkeypatch.syspath_prepend(folder)  # even where it could be found
    with pytest.raises(ValueError, match="no 'largest' in beit_jax.heads"):
        evaluate(workdir)
    assert f"the module '{NAME}', which no recipe of yours" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no recipe of yours has used here"):
        config_lib.load(workdir / "config.json")
    config = config_lib.from_dict(json.loads((workdir / "config.json").read_text()))
    with pytest.raises(ValueError, match="no recipe of yours has used here"):
        train(config, tmp_path / "new", quiet=True)
    assert times_imported(folder) == 1 and NAME not in sys.modules


def test_what_needs_no_module_of_it_works_for_such_a_checkpoint(
    run, tmp_path, monkeypatch
):
    _, workdir, _ = run
    monkeypatch.setenv("BEIT_JAX_CACHE", str(tmp_path / "of somebody else"))
    images = [pathlib.Path(__file__).parents[1] / "docs" / "masked.png"]
    (found,) = predict(workdir, images, "features")
    assert found.found["cls"].shape == (2, 32)


def test_another_module_of_that_name_is_not_taken_for_it(run, tmp_path, monkeypatch):
    folder, workdir, _ = run
    other = package(tmp_path / "other")
    monkeypatch.syspath_prepend(other)
    (said,) = modules.recall((NAME,), "its config")
    assert said.endswith(f"which was in {folder} and is in {other} now")
    assert not times_imported(other)


def test_a_module_that_is_gone_is_told(run):
    folder, _, _ = run
    shutil.rmtree(folder)
    (said,) = modules.recall((NAME,), "its config")
    assert said.endswith(f"which was in {folder} and is in no folder now")


def test_what_a_program_has_imported_itself_is_used_and_noted(ours, monkeypatch):
    monkeypatch.syspath_prepend(ours)
    importlib.import_module(NAME)
    assert modules.recall((NAME,), "its config") == []
    modules.note((NAME,))
    assert modules._noted() == {NAME: str(ours)}
