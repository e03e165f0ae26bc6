"""The arrays that data can put in a batch, and their shapes; no data need be there."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from beit_jax.data.annotations import ANNOTATIONS
from beit_jax.data.augmentations import AUGMENTATIONS

Spec = dict[str, tuple[tuple[int, ...], np.dtype]]  # name -> shape, dtype of a batch


def dtypes() -> dict[str, type]:
    """Name -> dtype of all that data can put in a batch."""
    made = {"image": np.uint8, "token_image": np.uint8, "mask": np.bool_}
    for row in (*ANNOTATIONS.values(), *AUGMENTATIONS.values()):
        made |= row.arrays
    return made


def train_only() -> set[str]:
    """What the compiled step augments by."""
    return {name for row in AUGMENTATIONS.values() for name in row.arrays}


def spec_of(example_spec: Mapping[str, Any], batch_size: int) -> Spec:
    """Of the example spec's arrays, and of every batch; no data need be there.

    weight  (B,) float32, 0 for padding and what was skipped
    index   (B,) int64, the example's in the source; -1 for padding
    """
    forms = {name: form.shape for name, form in example_spec.items()}
    kinds = {**dtypes(), "weight": np.float32, "index": np.int64}
    return {
        name: ((batch_size, *shape), np.dtype(kinds[name]))
        for name, shape in {**forms, "weight": (), "index": ()}.items()
    }
