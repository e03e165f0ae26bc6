"""The command `beit`: hands its words to a command of beit_jax/manual.py."""

import runpy
import sys

from beit_jax import __version__, manual
from beit_jax.lookup import nearest


def main() -> None:
    name, *words = sys.argv[1:] or ["--help"]
    if name in ("help", "-h", "-help", "--help"):
        print(manual.overview())
    elif name == "--version":
        print(f"beit {__version__}")
    elif name not in manual.COMMANDS:
        near = nearest(name, manual.COMMANDS)
        manual.refuse(f"no command {name!r}{near} (beit --help lists them)")
    elif manual.asked(words):
        print(manual.page(name))
    else:
        sys.argv = [f"beit {name}", *words]
        module = f"beit_jax.{manual.module_of(name)}"
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
