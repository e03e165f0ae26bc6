"""The recipes that come with beit_jax: where they lie, and how a name finds one."""

import ast
import pathlib


def folder() -> pathlib.Path:
    """In an installed package; of a repository, beside it."""
    package = pathlib.Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def names() -> list[str]:
    return sorted(path.stem for path in folder().glob("*.py"))


def find(given: str | pathlib.Path) -> pathlib.Path | None:
    """The file at this path, or with .py behind it; else the recipe of this name.

    NAME, NAME.py and configs/NAME.py name a recipe of ours where there is no such file.
    """
    path = pathlib.Path(given).expanduser()
    found = [path, pathlib.Path(f"{path}.py")]
    if str(path.parent) in (".", "configs"):
        found.append(folder() / f"{path.name.removesuffix('.py')}.py")
    return next((one for one in found if one.is_file()), None)


def purpose(name: str) -> str:
    """The first line of a recipe's head; the recipe is not run."""
    text = (folder() / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
