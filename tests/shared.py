"""Where the shared oracles and data sets lie, when this machine has them."""

import os
import pathlib

import pytest

ROOT = pathlib.Path(
    os.environ.get("BEIT_JAX_SHARED", pathlib.Path(__file__).parents[2] / "shared")
)


def shared_path(relative: str) -> pathlib.Path:
    """The path of a shared file; skips the test where there is none."""
    path = ROOT / relative
    if not path.exists():
        pytest.skip(f"no {relative} under BEIT_JAX_SHARED={ROOT}")
    return path
