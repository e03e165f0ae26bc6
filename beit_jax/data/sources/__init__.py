"""Sources of examples, one kind a file, and the table of them."""

from collections.abc import Mapping
from typing import Any

from beit_jax import tables
from beit_jax.data.sources import digits, folder, synthetic
from beit_jax.data.sources.base import Info, Source

__all__ = ["SOURCES", "Info", "Source", "build"]

SOURCES = {
    "digits": digits.Digits,
    "folder": folder.Folder,
    "synthetic": synthetic.Synthetic,
}


def build(spec: Mapping[str, Any]) -> Source:
    """The source `spec["name"]` with the rest of `spec` as its settings."""
    return tables.build(SOURCES, spec, "beit_jax.data.sources")
