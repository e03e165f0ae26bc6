"""What the command `beit` tells without doing anything."""

import pathlib
import re
import subprocess
import sys

import pytest

from beit_jax import manual, shipped
from beit_jax.checkpoints import write
from beit_jax.run.predictions import PREDICTIONS
from beit_jax.tasks import encoders

ROOT = pathlib.Path(__file__).parents[1]
HEAVY = {"jax", "flax", "orbax", "tensorflow", "torch", "PIL", "matplotlib"}


def beit(*words: str, cwd=None, package=ROOT) -> subprocess.CompletedProcess:
    """`beit WORDS` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "beit_jax", *words],
        cwd=cwd,
        env={"PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
    )


def test_help_fits_a_screen_and_names_every_command():
    lines = manual.overview().splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    for name in manual.COMMANDS:
        assert any(line.split()[:1] == [name] for line in lines)


@pytest.mark.parametrize("name", manual.COMMANDS)
def test_a_commands_help_tells_all_its_flags(name):
    page = manual.page(name)
    assert page.startswith(f"usage: beit {name}")
    assert "python -m beit_jax." not in page.replace("beit_jax.keys", "")
    told = re.findall(r"^  --(?:\[no\])?(\w+)", page, re.MULTILINE)
    assert sorted(f"--{flag}" for flag in told) == sorted(manual.flag_names(name))
    assert set(manual.COMMANDS[name].needs) <= set(told)
    assert max(map(len, page.splitlines())) <= 100


def test_help_imports_nothing_that_takes_seconds():
    script = (
        "import sys; from beit_jax import manual, recipes, completion;"
        "[manual.page(name) for name in manual.COMMANDS];"
        "recipes.listed(); completion.script(); print(*sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not HEAVY & set(run.stdout.split())


def test_what_reads_no_batches_does_without_tensorflow():
    modules = "convert, curves, preflight"
    script = f"import sys; from beit_jax import {modules}; print(*sys.modules)"
    run = [sys.executable, "-c", script]
    told = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "tensorflow" not in told.stdout.split()


def test_what_help_says_that_there_is_there_is():
    assert set(manual.FORMATS) == set(write.FORMATS)
    assert manual.FEATURES == encoders.FEATURES
    page = manual.page("predict")
    assert all(f"\n  {name} " in page for name in PREDICTIONS)


def test_recipes_are_listed_with_their_purpose_and_printed_to_be_copied(tmp_path):
    listed = beit("recipes", cwd=tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in listed] == shipped.names()
    assert all(len(line.split()) > 3 for line in listed)
    printed = beit("recipes", "digits_pretrain", cwd=tmp_path).stdout
    assert printed == (ROOT / "configs" / "digits_pretrain.py").read_text()


def test_a_recipe_is_found_by_its_name_and_a_file_of_ones_own_wins(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    ours = ROOT / "configs" / "digits_probe.py"
    for name in ("digits_probe", "digits_probe.py", "configs/digits_probe.py"):
        assert shipped.find(name) == ours
    assert shipped.find("elsewhere/digits_probe.py") is None
    own = pathlib.Path("digits_probe.py")
    own.write_text("")
    assert shipped.find("digits_probe") == shipped.find("digits_probe.py") == own


def test_recipes_travel_in_the_package(tmp_path):
    build = ["setup.py", "-q", "build", "-b", f"{tmp_path}/b", "--build-lib"]
    package = tmp_path / "lib"
    run = [sys.executable, *build, str(package)]
    subprocess.run(run, cwd=ROOT, check=True, capture_output=True)
    listed = beit("recipes", cwd=tmp_path, package=package).stdout.splitlines()
    assert [line.split()[0] for line in listed] == shipped.names()
    where = "from beit_jax import shipped; print(shipped.find('digits_probe'))"
    run = [sys.executable, "-c", where]
    env = {"PYTHONPATH": str(package)}
    found = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert found.stdout.strip() == f"{package}/beit_jax/configs/digits_probe.py"


@pytest.mark.parametrize("words", [["--help"], [], ["help"]])
def test_help_is_no_error(words):
    run = beit(*words)
    assert run.returncode == 0 and run.stdout.strip() == manual.overview().strip()


def test_the_script_for_a_shell_completes_commands_flags_and_recipes():
    script = beit("completion", "bash").stdout

    def completed(*words: str) -> list[str]:
        quoted = " ".join(f"'{word}'" for word in words)
        call = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _beit"
        shell = f"{script}\n{call}\necho ${{COMPREPLY[@]}}"
        run = ["bash", "-c", shell]
        return subprocess.run(run, capture_output=True, text=True).stdout.split()

    assert completed("beit", "che") == ["check-data"]
    assert completed("beit", "train", "--wo") == ["--workdir"]
    assert completed("beit", "train", "--config", "=", "digits_pro") == ["digits_probe"]
    assert completed("beit", "recipes", "beit_l") == ["beit_linear_probe"]
