"""TensorFlow, for the pipeline alone: `from beit_jax.data.graph import tf`.

It takes seconds to import. What only cuts, decodes or describes images does without.
"""

import contextlib
import os
from collections.abc import Iterator
from types import ModuleType


@contextlib.contextmanager
def _set(name: str, value: str) -> Iterator[None]:
    """A variable of the environment, for as long as this lasts."""
    before = os.environ.get(name)
    os.environ[name] = value
    yield
    if before is None:
        del os.environ[name]
    else:
        os.environ[name] = before


# Told to use the Keras of old, TensorFlow imports none until somebody asks for one: a
# third of its time. Whoever does gets the one of today, for only the import is told.
with _set("TF_USE_LEGACY_KERAS", "1"):
    import tensorflow as tf

# The accelerators belong to JAX; TensorFlow would take all of a GPU's memory.
tf.config.set_visible_devices([], "GPU")


def datasets() -> ModuleType:
    """TensorFlow Datasets, 5 s more: only where one is read."""
    import tensorflow_datasets

    return tensorflow_datasets
