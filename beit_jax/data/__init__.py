"""Data: sources -> views -> batches -> streams, as numpy batches.

Every batch is a pure function of (seed, step). No JAX here: TensorFlow draws, shuffles
and masks, Pillow decodes and augments.
"""
