"""Data: sources -> views -> batches -> streams, as numpy batches.

Every batch is a pure function of (seed, step). No JAX here: TensorFlow draws, shuffles
and masks, Pillow decodes and augments.
"""

import tensorflow as tf

# The accelerators belong to JAX; TensorFlow would take all of a GPU's memory.
tf.config.set_visible_devices([], "GPU")
