"""Who may import whom, read from the syntax trees; nothing is imported here."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = "beit_jax"

# What helps everywhere and knows nothing of the rest.
LEAVES = {
    "cache",
    "lookup",
    "masks",
    "pages",
    "palette",
    "ranges",
    "stores",
    "text",
    "__version__",
}
SHARDED = {"sharding.partitioned", "sharding.constrain"}
COMMAND = {"run", "command", "config", "tasks", "sharding", "lookup", "hosts"}
# Room of the house -> what its modules may import of beit_jax, besides LEAVES. A name
# allows everything below it; the longest room that a module lies in decides.
MAY_IMPORT = {
    "models": {"models", *SHARDED},
    "heads": {"heads", "models", *SHARDED},
    # Frozen networks come out of checkpoints.
    "targets": {"targets", "models", "checkpoints.frozen"},
    "charts": {"charts"},
    "data": {"data"},
    "tasks": {"tasks", "models", "targets", "heads", "sharding"}
    | {"checkpoints.frozen", "checkpoints.steps.Restored"},
    "checkpoints": {"checkpoints", "config", "models"},
    "optim": {"optim", "config", "checkpoints.names"},
    "run": {
        "run",
        "config",
        "modules",
        "sharding",
        "tasks",
        "optim",
        "checkpoints",
        "models",
    }
    | {"data", "charts", "hosts", "targets.tokens.UNTRAINED"},
    "train": {*COMMAND, "checkpoints", "data.pipeline", "modules"},
    "evaluate": {*COMMAND, "checkpoints", "data.pipeline"},
    "predict": {*COMMAND, "checkpoints", "data.pipeline", "data.sources"},
    "replay": {*COMMAND, "checkpoints"},
    "knn": {*COMMAND, "checkpoints", "charts", "targets.tokens.UNTRAINED"},
    "curves": {"charts", "command", "run.writer"},
    "ahead": {"ahead"},
    "preflight": {*COMMAND, "ahead", "data.sources"},
    "check_data": {"command", "config", "tasks", "data", "charts", "models.pixels"},
    "convert": {"run", "command", "checkpoints"},
    "recipes": {"manual", "shipped"},
    "completion": {"manual", "shipped"},
    "__main__": {"manual"},
    "command": {"hosts", "manual", "options", "process"},
    "manual": {"options"},
    "options": {"config"},
    "hosts": {"options"},
    "process": set(),
    "keys": {"config", "run", "tasks", "data.settings", "models.backbones", "optim"},
    "config": {"durations", "modules", "moved", "shipped", "variants"},
    "modules": set(),
    "durations": set(),
    "shipped": set(),
    "variants": set(),
    "moved": set(),
    "sharding": set(),
    "cache": set(),
    "lookup": set(),
    "masks": set(),
    "pages": set(),
    "palette": set(),
    "stores": set(),
    "text": set(),
    "ranges": set(),
    "__init__": {"run.opened"},
}
NOT_IN_DATA = {"jax", "jaxlib", "flax", "optax", "orbax"}


def modules() -> dict[str, ast.Module]:
    """Path within the package -> syntax tree."""
    folder = ROOT / PACKAGE
    return {
        path.relative_to(folder).as_posix(): ast.parse(path.read_text())
        for path in sorted(folder.rglob("*.py"))
    }


def imports(tree: ast.Module, where: str) -> set[str]:
    """Dotted names of everything that is imported, wherever in the file.

    `from a import b` gives `a.b`: b may be a module or something in a.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{where}:{node.lineno} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part_of(path: str) -> str:
    """`models/vit.py` -> models, `train.py` -> train."""
    return path.split("/")[0].removesuffix(".py")


def breaches(path: str, tree: ast.Module) -> list[str]:
    """Imports of beit_jax that the matrix does not allow."""
    allowed = MAY_IMPORT[part_of(path)] | LEAVES
    own = {
        name.removeprefix(PACKAGE + ".")
        for name in imports(tree, path)
        if name == PACKAGE or name.startswith(PACKAGE + ".")
    }
    return [
        f"{path} imports {name}"
        for name in sorted(own)
        if not any(name == good or name.startswith(good + ".") for good in allowed)
    ]


def test_imports_keep_to_the_matrix():
    wrong = [line for path, tree in modules().items() for line in breaches(path, tree)]
    assert not wrong, "\n".join(wrong)


def test_every_part_of_the_house_is_in_the_matrix():
    assert {part_of(path) for path in modules()} == MAY_IMPORT.keys()


@pytest.mark.parametrize(
    "path, line",
    [
        ("models/vit.py", "from beit_jax.tasks import base"),
        ("models/vit.py", "from beit_jax.sharding import make_mesh"),
        ("models/vit.py", "import beit_jax.data.pipeline"),
        ("data/settings.py", "from beit_jax import config"),
        ("targets/hog.py", "from beit_jax.heads.linear import LinearHead"),
        ("tasks/segment.py", "from beit_jax.data.pipeline import Stream"),
        ("tasks/segment.py", "from beit_jax.run.state import TrainState"),
        ("tasks/segment.py", "from beit_jax.charts import confusion"),
        ("run/step.py", "from beit_jax.train import train"),
        ("predict.py", "from beit_jax.evaluate import evaluate"),
        ("checkpoints/read.py", "from beit_jax import card"),
        ("train.py", "from beit_jax.models import vit"),
        ("train.py", "def f():\n  from beit_jax.data.settings import flip"),
    ],
)
def test_a_breach_is_found(path, line):
    assert breaches(path, ast.parse(line))


def test_data_does_without_jax():
    for path, tree in modules().items():
        if part_of(path) == "data":
            roots = {name.split(".")[0] for name in imports(tree, path)}
            assert not roots & NOT_IN_DATA, path


def test_recipes_import_only_the_config_module():
    recipes = sorted((ROOT / "configs").glob("*.py"))
    assert recipes
    for path in recipes:
        found = imports(ast.parse(path.read_text()), path.name)
        assert found <= {"beit_jax.config"}, f"{path.name}: {sorted(found)}"


def test_modules_do_not_import_each_other_in_circles():
    trees = modules()
    names = {path.removesuffix(".py").removesuffix("/__init__"): path for path in trees}
    names = {name.replace("/", "."): path for name, path in names.items()}

    def next_to(path):
        for name in imports(trees[path], path):
            name = name.removeprefix(PACKAGE + ".")
            parent = name.rpartition(".")[0]
            if name in names or parent in names:
                yield names.get(name) or names[parent]

    def visit(path, trail, done):
        assert path not in trail, " -> ".join([*trail, path])
        if path not in done:
            for other in set(next_to(path)):
                visit(other, [*trail, path], done)
            done.add(path)

    done = set()
    for path in trees:
        visit(path, [], done)


def test_every_file_has_a_name_that_says_what_it_holds():
    vague = {"utils.py", "util.py", "misc.py", "helpers.py", "common.py"}
    files = [
        p for folder in (PACKAGE, "configs") for p in (ROOT / folder).rglob("*.py")
    ]
    assert not [path for path in files if path.name in vague]
