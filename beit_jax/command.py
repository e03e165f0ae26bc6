"""What the commands share: flags, exit codes, and errors as sentences."""

import pathlib
import sys
import traceback
from collections.abc import Callable, Sequence

from absl import app, flags, logging
from ml_collections import config_flags

from beit_jax import hosts

PREEMPTED = 75  # stopped by a signal after a save; the same command goes on
UNUSABLE = 78  # a config, a checkpoint or data that cannot be used


def define_config(config_help: str) -> None:
    """Defines --config FILE[:ARG] and --config.KEY=VALUE."""
    # Unlocked: `config.check` and the tables name what is wrong with a key, and know
    # the settings that a recipe does not list.
    config_flags.DEFINE_config_file(
        "config", help_string=config_help, lock_config=False, accept_new_attributes=True
    )


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


def names(flag: str, given: Sequence[str]) -> list[str]:
    """A flag's names as they are or, of "@FILE", the lines of that file.

    Raises:
      ValueError: no such file, or no text in it.
    """
    if len(given) != 1 or not given[0].startswith("@"):
        return list(given)
    try:
        text = pathlib.Path(given[0][1:]).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"--{flag}={given[0]} must name a text file with a name a line: {error}"
        ) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def run(function: Callable[..., None], arguments: tuple[str, ...] = ()) -> None:
    """Parses the flags and calls `function` with them and the named `arguments`.

    A last argument called "NAME ..." stands for one or more, "[NAME ...]" for any.
    A ValueError that this package raised is a sentence for the user: it is printed
    without a traceback, and the exit code is 78, or what the error says.
    """

    def main(argv: list[str]) -> None:
        logging.set_verbosity(logging.ERROR)
        names = " ".join(arguments) or "nothing"
        least = len(arguments) - names.endswith("...]")
        most = len(argv) if "..." in names else least
        if not least <= len(argv) - 1 <= most:
            raise app.UsageError(f"besides flags it takes {names}, not {argv[1:]}")
        with hosts.ending_together():
            try:
                hosts.join(flags.FLAGS)
                function(flags.FLAGS, *argv[1:])
            except ValueError as error:
                if not _is_ours(error):
                    raise
                print(f"error: {error}", file=sys.stderr)
                sys.exit(getattr(error, "exit_code", UNUSABLE))

    app.run(main)


def _is_ours(error: Exception) -> bool:
    raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
    return pathlib.Path(__file__).parent in pathlib.Path(raised_in).resolve().parents
