"""What the commands share: flags, exit codes, and errors as sentences."""

import ast
import contextlib
import errno
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from beit_jax import config as config_lib
from beit_jax import hosts, process
from beit_jax.text import one_line

PREEMPTED = 75  # stopped by a signal after a save; the same command goes on
UNUSABLE = 78  # a config, a checkpoint or data that cannot be used
STORAGE = 74  # a path that cannot be written or read, or a full disk
NUMERIC = 70  # a loss or gradients that are not finite


_ROOM = "; make room, and the same command goes on from the last step that was saved"
_WAYS_OUT = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EROFS: "; name a folder that can be written",
    errno.EACCES: "; name a folder that can be written",
}


# How TensorStore tells it, whose errors are of other kinds.
_OS_ERROR = re.compile(r"(?i)\bos_error_code='(\d+)|\bos error (\d+)")


class _Unread(Exception):
    """A config that cannot be read; absl would take the cause for its own."""


class _Recipe(flags.ArgumentParser):
    """FILE[:ARG] -> its config, with room for what other flags set in it."""

    def parse(self, given: str) -> ConfigDict:
        file, *arg = given.split(":", 1)
        try:
            config = config_lib.load(file, *arg)
            for argument in sys.argv:
                _make_room(config, argument)
        except Exception as error:
            raise _Unread from error
        return config


def _make_room(config: ConfigDict, argument: str) -> None:
    """Lets --config.a.b.c=VALUE be set, where ml_collections would raise.

    Makes the sections a and a.b, which `config.check` names if there are none such, and
    a tuple of a number that VALUE has several of: an image_size, say.
    """
    flag = re.match(r"--?(?:no)?config\.([^=]+)(?:=(.+))?", argument)
    if not flag:
        return
    *sections, key = flag[1].split(".")
    for section in sections:
        if section not in config:
            config[section] = {}
        config = config[section]
        if not isinstance(config, ConfigDict):
            raise ValueError(f"{argument}: there are no settings below {section!r}")
    with contextlib.suppress(ValueError, SyntaxError), config.ignore_type():
        values = ast.literal_eval(flag[2] or "")
        if isinstance(values, tuple) and isinstance(config.get(key), int | float):
            config[key] = values


def define_config(config_help: str) -> None:
    """Defines --config FILE[:ARG] and --config.KEY=VALUE."""
    # Unlocked: `config.check` and the tables name what is wrong with a key, and know
    # the settings that a recipe does not list.
    holder = config_flags.DEFINE_config_file(
        "config", help_string=config_help, lock_config=False, accept_new_attributes=True
    )
    flags.FLAGS[holder.name].parser = _Recipe()


def define_flags(workdir_help: str, config_help: str) -> None:
    """Defines what `define_config` does, --workdir, and those of several hosts."""
    define_config(config_help)
    flags.DEFINE_string("workdir", None, workdir_help)
    hosts.define_flags()
    flags.mark_flag_as_required("workdir")


def define_class_names() -> None:
    """Defines --class_names, to be read by `names`."""
    flags.DEFINE_list(
        "class_names",
        [],
        "A,B,C or @FILE with a name a line: the checkpoint's classes, if it does not "
        "know their names, in their order",
    )


def define_tta() -> None:
    """Defines --tta."""
    flags.DEFINE_string(
        "tta", "", "flip, five or ten: average over such views of each image"
    )


class _Paths(flags.ListParser):
    """Paths with commas between, or one that has commas itself if there is such."""

    def parse(self, argument):
        if argument and os.path.lexists(os.path.expanduser(argument)):
            return [argument]
        return super().parse(argument)


def define_paths(name: str, paths_help: str) -> None:
    """Defines a flag of PATH[,PATH...]; a path in quotes may have commas."""
    serializer = flags.CsvListSerializer(",")
    flags.DEFINE(_Paths(), name, [], paths_help, serializer=serializer)


def names(flag: str, given: Sequence[str]) -> list[str]:
    """A flag's names as they are or, of "@FILE", the lines of that file.

    Raises:
      ValueError: no such file, or no text in it.
    """
    if len(given) != 1 or not given[0].startswith("@"):
        return list(given)
    try:
        text = pathlib.Path(given[0][1:]).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"--{flag}={given[0]} must name a text file with a name a line: {error}"
        ) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def run(function: Callable[..., None], arguments: tuple[str, ...] = ()) -> None:
    """Parses the flags and calls `function` with them and the named `arguments`.

    A last argument called "NAME ..." stands for one or more, "[NAME ...]" for any.
    What a person can mend is printed in a sentence without a traceback, and the exit
    code says what it is about: see `_told`.
    """

    def main(argv: list[str]) -> None:
        # What a library logs as an error it raises, too.
        logging.set_verbosity(logging.FATAL)
        # As stderr is: a file's name that is not UTF-8 must not end a command.
        sys.stdout.reconfigure(errors="backslashreplace")
        names = " ".join(arguments) or "nothing"
        least = len(arguments) - names.endswith("...]")
        most = len(argv) if "..." in names else least
        if not least <= len(argv) - 1 <= most:
            raise app.UsageError(f"besides flags it takes {names}, not {argv[1:]}")
        process.keep_compiled()
        with hosts.ending_together(), _sentences():
            hosts.join(flags.FLAGS)
            function(flags.FLAGS, *argv[1:])

    try:
        with _sentences():  # of a config, which is read with the flags
            app.run(main)
    except SystemExit as end:
        if end.code == STORAGE:
            _leave(STORAGE)
        raise


def _leave(code: int) -> NoReturn:
    """Without the threads of libraries, which may wait for a disk for minutes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        cause = error.__cause__ if isinstance(error, _Unread) else error
        if not (told := _told(cause)):
            raise
        print(f"error: {told[0]}", file=sys.stderr)
        sys.exit(told[1])


def _told(error: BaseException) -> tuple[str, int] | None:
    """A sentence and the exit code of what a person can mend; None of all else."""
    if isinstance(error, ValueError) and _is_ours(error):
        return str(error), getattr(error, "exit_code", UNUSABLE)
    if isinstance(error, FloatingPointError):
        return str(error), NUMERIC
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}{_WAYS_OUT.get(error.errno, '')}", STORAGE
    if os_error := re.search(_OS_ERROR, str(error)):
        number = int(os_error[1] or os_error[2])
        way_out = _WAYS_OUT.get(number, "")
        return f"{one_line(str(error))}: {os.strerror(number)}{way_out}", STORAGE
    return None


def _is_ours(error: Exception) -> bool:
    raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
    return pathlib.Path(__file__).parent in pathlib.Path(raised_in).resolve().parents
