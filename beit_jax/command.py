"""What the commands share: flags, exit codes, and errors as sentences."""

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

from beit_jax import hosts, lookup, manual, process
from beit_jax.options import Unread
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


def run(name: str, function: Callable[..., None]) -> None:
    """Parses the flags of the command `name`, and calls `function` with them and with
    its arguments.

    What a person can mend is printed in a sentence without a traceback, and the exit
    code says what it is about: see `_told`. Asked for help, it gives that and no more.
    """
    if manual.asked(sys.argv[1:]):
        print(manual.page(name))
        return
    told = manual.COMMANDS[name]
    told.define()
    flags.mark_flags_as_required(told.needs)

    def main(argv: list[str]) -> None:
        # What a library logs as an error it raises, too.
        logging.set_verbosity(logging.FATAL)
        # As stderr is: a file's name that is not UTF-8 must not end a command.
        sys.stdout.reconfigure(errors="backslashreplace")
        names = " ".join(told.words) or "nothing"
        least = len(told.words) - names.endswith("...]")
        most = len(argv) if "..." in names else least
        if not least <= len(argv) - 1 <= most:
            raise app.UsageError(f"besides flags it takes {names}, not {argv[1:]}")
        process.keep_compiled()
        with hosts.ending_together(), _sentences():
            hosts.join(flags.FLAGS)
            function(flags.FLAGS, *argv[1:])

    try:
        with _sentences():  # of a config, which is read with the flags
            app.run(main, flags_parser=_parse)
    except SystemExit as end:
        if end.code == STORAGE:
            _leave(STORAGE)
        raise


def _parse(argv: list[str]) -> list[str]:
    """What is left of `argv` without flags; one that is wrong is told in a line."""
    try:
        return flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        first = error.flagname.split(".")[0]
        near = "" if "mean:" in str(error) else lookup.nearest(first, flags.FLAGS)
        if first == "config" != error.flagname:
            near = ": name its recipe first, by --config"
        problem = f"{error}{near}"
    except flags.Error as error:
        problem = str(error).replace("\n", "; ")
    manual.refuse(f"{one_line(problem)} (--help tells the flags)")


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
        cause = error.__cause__ if isinstance(error, Unread) else error
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
