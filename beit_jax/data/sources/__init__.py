"""Sources of examples, one kind a file, and the table of them."""

from collections.abc import Mapping
from typing import Any

from beit_jax import lookup
from beit_jax.data.sources import (
    digit_scenes,
    digits,
    folder,
    huggingface,
    listing,
    mixture,
    pairs,
    parquet,
    published,
    synthetic,
    tfds,
    webdataset,
)
from beit_jax.data.sources.base import (
    BadExample,
    DataError,
    Info,
    Record,
    Source,
    difference,
)

__all__ = [
    "SOURCES",
    "BadExample",
    "DataError",
    "Info",
    "Record",
    "Source",
    "build",
    "difference",
]

SOURCES = {
    "ade20k": published.Ade20k,
    "camvid": published.Camvid,
    "cityscapes": published.Cityscapes,
    "digit_scenes": digit_scenes.DigitScenes,
    "digits": digits.Digits,
    "folder": folder.Folder,
    "huggingface": huggingface.HuggingFace,
    "list": listing.Listing,
    "mixture": mixture.Mixture,
    "parquet": parquet.Parquet,
    "segments": pairs.Segments,
    "synthetic": synthetic.Synthetic,
    "tfds": tfds.Tfds,
    "voc": published.Voc,
    "webdataset": webdataset.WebDataset,
}


def build(spec: Mapping[str, Any]) -> Source:
    """The source `spec["name"]` with the rest of `spec` as its settings."""
    return lookup.build(SOURCES, spec, "beit_jax.data.sources", build=build)
