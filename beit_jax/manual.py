"""The commands: what each is for, what it takes, and how it is told.

Imports nothing heavy: help is to come at once. What a command does in full, the head
of its module says, which is read here and not run.
"""

import ast
import pathlib
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from absl import flags

from beit_jax import __version__, options

EXAMPLES = """\
examples:
  beit recipes                               what there is to run
  beit train --config digits_tokenizer --workdir runs/tokenizer
  beit train --config digits_pretrain --workdir runs/pretrain --config.seed=1
  beit evaluate --workdir runs/finetune --data photos
  beit predict --checkpoint runs/finetune --images photos
"""
OF_CONFIG = """\
--config takes the name of a recipe, NAME or NAME:VARIANT (beit recipes), a file of
your own, FILE.py[:ARG], or the config.json of a run. Any key of it is set by
--config.KEY=VALUE: --config.optim.lr=1e-3 --config.data.source.path=photos. All keys
are in docs/keys.md, which `python -m beit_jax.keys` writes.
"""


_COLUMN = 26  # where the help of flags begins


class Command(NamedTuple):
    """What `beit NAME` runs.

    Attributes:
      purpose: in a line.
      define: defines its flags.
      needs: flags that must be given.
      words: the arguments besides flags; a last one called "NAME ..." stands for one or
        more, "[NAME ...]" for any.
    """

    purpose: str
    define: Callable[[], None] = lambda: None
    needs: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def _train() -> None:
    options.define_flags("where checkpoints and logs go", "a recipe, FILE[:ARG]")


def _evaluate() -> None:
    flags.DEFINE_string("data", "", "a folder or an archive, instead of eval_source")
    flags.DEFINE_list("evals", [], "which of the config's evals, too; all: all")
    flags.DEFINE_string("out", "", "where tables and pictures go; none if not given")
    flags.DEFINE_bool(
        "override_card", False, "let images look otherwise than in training"
    )
    options.define_class_names()
    options.define_tta()
    options.define_flags(
        "a run's work directory, or any other checkpoint",
        "a recipe, FILE[:ARG], instead of the checkpoint's own config",
    )


def _predict() -> None:
    flags.DEFINE_string(
        "checkpoint", None, "a run's work directory, or any other checkpoint"
    )
    options.define_paths("images", "folders, archives, image files: PATH[,PATH...]")
    # No enum: a recipe may add one to the table.
    flags.DEFINE_string("what", "labels", "what to find, of the names above")
    flags.DEFINE_string("out", "predictions", "the folder for what was found")
    flags.DEFINE_bool("overwrite", False, "replace what an earlier command wrote")
    flags.DEFINE_integer("batch_size", 0, "0: up to 16 images a device")
    flags.DEFINE_integer("top", 5, "labels: so many likeliest classes", lower_bound=1)
    options.define_class_names()
    options.define_tta()
    options.define_config("a recipe, FILE[:ARG], instead of the checkpoint's config")
    flags.DEFINE_list("blocks", [], "features, attention: which, 0,11 say; else all")
    flags.DEFINE_list("patch", [], "attention: ROW,COLUMN of a patch, from 0")


def _knn() -> None:
    options.define_config("a recipe, FILE[:ARG], for its data")
    flags.DEFINE_string(
        "checkpoint", None, "a run's work directory, any other checkpoint, or untrained"
    )
    flags.DEFINE_string("workdir", None, "where knn.json and neighbours.png go")
    flags.DEFINE_enum("features", "concat", FEATURES, "what stands for an image")
    flags.DEFINE_integer("k", 20, "neighbours that vote")
    flags.DEFINE_float("temperature", 0.07, "of the votes")
    flags.DEFINE_integer("block", None, "whose neighbours to draw, instead of the best")


def _convert() -> None:
    flags.DEFINE_enum("to", None, FORMATS, "what TARGET is to be")
    flags.DEFINE_list("allow", [], "patterns of names to leave behind: 'lm_head*,…'")
    flags.DEFINE_list("image_size", [], "of a side, or HEIGHT,WIDTH: others' positions")
    flags.DEFINE_integer("heads", None, "of attention, where SOURCE does not tell")
    flags.DEFINE_string("pixels", "", "half or imagenet, where SOURCE does not tell")


def _check_data() -> None:
    options.define_config("a recipe, FILE[:ARG]")
    flags.DEFINE_string("data", "", "a folder, an archive or a list, .csv or .jsonl")
    flags.DEFINE_bool("evaluation", False, "look at the recipe's eval_source")
    flags.DEFINE_string("out", "check_data", "where report.json and sheet.png go")
    flags.DEFINE_integer("limit", 0, "look at the first so many; 0: all")


def _preflight() -> None:
    options.define_config("a recipe, FILE[:ARG]")
    flags.DEFINE_string("on", None, "v5e:4x8, h100:16, cpu:8: what to compile for")
    flags.DEFINE_integer("examples", 0, "in an epoch; 0: ask the recipe's source")
    flags.DEFINE_float("memory", 0.0, "GiB of a device, instead of the published ones")
    flags.DEFINE_float("price", 0.0, "of a device for an hour")
    flags.DEFINE_bool("search", True, "where it does not fit, try what would")
    flags.DEFINE_string("json", "", "a file for everything that was found")
    flags.DEFINE_float("images_per_core", 206.0, "that a host's core makes a second")
    flags.DEFINE_float("image_kb", 115.0, "of an image as stored")


def _curves() -> None:
    flags.DEFINE_list("metric", "train/loss", "names of metrics, with commas between")
    flags.DEFINE_string("out", "curves.png", "the picture to write")
    flags.DEFINE_integer("smooth", 1, "mean of so many points", lower_bound=1)


def _replay() -> None:
    options.define_config("a recipe, FILE[:ARG], instead of the run's own config")
    flags.DEFINE_string("workdir", None, "of the run")
    flags.DEFINE_integer("step", None, "which; the last one that failed if not given")


# As in checkpoints/write.py and tasks/encoders.py, which take seconds to import.
FORMATS = ("orbax", "safetensors", "hf", "timm", "official")
FEATURES = ("cls", "mean", "concat")

COMMANDS = {
    "recipes": Command("lists the recipes, or prints one", words=("[NAME]",)),
    "train": Command("trains what a recipe says", _train, ("config", "workdir")),
    "evaluate": Command("measures a checkpoint", _evaluate, ("workdir",)),
    "predict": Command(
        "labels, tokens, features of images",
        _predict,
        ("checkpoint",),
        ("[IMAGE ...]",),
    ),
    "knn": Command("nearest neighbours on features", _knn, ("checkpoint", "workdir")),
    "convert": Command(
        "weights to and from timm, transformers, …",
        _convert,
        words=("SOURCE", "TARGET"),
    ),
    "check-data": Command("looks at a data set before a run does", _check_data),
    "preflight": Command(
        "what a run will cost on other hardware", _preflight, ("config", "on")
    ),
    "curves": Command("draws metrics of runs", _curves, words=("RUN ...",)),
    "replay": Command("does a step again that was not finite", _replay, ("workdir",)),
    "completion": Command("completes words for a shell", words=("SHELL",)),
}


def refuse(problem: str, code: int = 1) -> NoReturn:
    """Ends a command that has begun nothing: by default, for words it does not know."""
    print(f"error: {problem}", file=sys.stderr)
    sys.exit(code)


def asked(words: Sequence[str]) -> bool:
    """Whether one of a command's words asks for help."""
    before = words[: words.index("--")] if "--" in words else words
    return not {"-h", "-help", "--help", "--helpshort"}.isdisjoint(before)


def module_of(name: str) -> str:
    """The module of beit_jax that a command is."""
    return name.replace("-", "_")


def overview() -> str:
    """What `beit --help` says: it fits a screen."""
    width = max(map(len, COMMANDS))
    rows = [f"  {name:{width}}  {told.purpose}" for name, told in COMMANDS.items()]
    return "\n".join(
        [
            f"beit {__version__}: tokenizers, masked image modelling, fine-tuning",
            "",
            "usage: beit COMMAND ...      beit COMMAND --help tells what it takes",
            "",
            *rows,
            "",
            EXAMPLES.rstrip(),
        ]
    )


def page(name: str) -> str:
    """What `beit NAME --help` says: usage, the head of its module, its flags."""
    command, mine = COMMANDS[name], _flags(name)
    needed = [f"--{flag} {_takes(mine[flag])}" for flag in command.needs]
    usage = ["usage: beit", name, *needed, *command.words, *["[flags]"] * bool(mine)]
    parts = [" ".join(usage), _head(module_of(name))]
    if mine:
        needed_first = sorted(mine.values(), key=lambda f: f.name not in command.needs)
        parts.append("\n".join(["flags:", *map(_told, needed_first)]))
    if "config" in mine:
        parts.append(OF_CONFIG.rstrip())
    return "\n\n".join(parts)


def flag_names(name: str) -> list[str]:
    """The flags of a command as they are typed."""
    return [f"--{flag}" for flag in _flags(name)]


def _flags(name: str) -> dict[str, flags.Flag]:
    """A command's own, which are not left defined."""
    known = set(flags.FLAGS)
    COMMANDS[name].define()
    mine = {flag: flags.FLAGS[flag] for flag in flags.FLAGS if flag not in known}
    for flag in mine:
        delattr(flags.FLAGS, flag)
    return mine


def _head(module: str) -> str:
    """The head of a module, in which commands are called as here."""
    path = pathlib.Path(__file__).with_name(f"{module}.py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    text = ast.get_docstring(tree)
    return re.sub(
        r"python -m beit_jax\.(\w+)", lambda m: f"beit {m[1].replace('_', '-')}", text
    )


def _takes(flag: flags.Flag) -> str:
    """What stands for a flag's value."""
    if flag.name == "config":
        return "RECIPE"
    if isinstance(flag, flags.EnumFlag):
        return "|".join(flag.parser.enum_values)
    kind = flag.flag_type()
    return {"string": "TEXT", "int": "N", "float": "X"}.get(kind, "A,B")


def _told(flag: flags.Flag) -> str:
    """Name and help of a flag, and what it is where it is not given."""
    name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name} {_takes(flag)}"
    text = flag.help.removeprefix(f"<{_takes(flag)}>: ")
    if flag.default not in (None, "", [], False, 0):
        text += f" ({flag.default_as_str})".replace("'", "")
    lines = textwrap.wrap(text, 60)
    if len(name) > _COLUMN - 4:
        lines = ["", *lines]
    return f"\n{'':{_COLUMN}}".join([f"  {name:{_COLUMN - 2}}{lines[0]}", *lines[1:]])
