"""How the commands' flags are made. Imports nothing heavy: help is to come at once."""

import ast
import contextlib
import os
import re
import sys

from absl import flags
from ml_collections import ConfigDict, config_flags

from beit_jax import config as config_lib

HOSTS = {
    "coordinator": "HOST:PORT of process 0, as all processes reach it",
    "processes": "how many there are",
    "process": "which of them this is, from 0",
}


def variable(name: str) -> str:
    """What stands for a flag of several hosts in the environment."""
    return f"BEIT_JAX_{name.upper()}"


class Unread(Exception):
    """A config that cannot be read; absl would take the cause for its own."""


class _Recipe(flags.ArgumentParser):
    """FILE[:ARG] -> its config, with room for what other flags set in it."""

    def parse(self, given: str) -> ConfigDict:
        file, *arg = given.split(":", 1)
        if not file.endswith(".json"):
            # As `python -m` has it, but last: a recipe may import what lies here.
            sys.path.append(os.getcwd())
        try:
            config = config_lib.load(file, *arg)
            for argument in sys.argv:
                _make_room(config, argument)
        except Exception as error:
            raise Unread from error
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
    _define_hosts()


def _define_hosts() -> None:
    """Defines --coordinator, --processes, --process and --multihost."""
    for name, text in HOSTS.items():
        define = flags.DEFINE_string if name == "coordinator" else flags.DEFINE_integer
        define(name, None, f"{text}; or {variable(name)} in the environment")
    flags.DEFINE_bool(
        "multihost", False, "let JAX find the processes that a cluster has started"
    )


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
