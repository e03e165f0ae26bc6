"""Where what can be made again is kept for the next start."""

import os
import pathlib


def folder() -> pathlib.Path:
    """$BEIT_JAX_CACHE, else beit_jax below $XDG_CACHE_HOME or ~/.cache."""
    if ours := os.environ.get("BEIT_JAX_CACHE"):
        return pathlib.Path(ours).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(home).expanduser() / "beit_jax"
