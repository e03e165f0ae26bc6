"""How MAE's weights start (arXiv:2111.06377, A.1)."""

import math

import jax

Array = jax.Array

UNSCALED = 0.5  # as its number, the block whose weights start as they are drawn


def xavier(key: Array, shape: tuple[int, ...]) -> Array:
    """U(-1, 1) * sqrt(6 / (inputs + outputs)), as MAE starts kernels.

    All axes but the last are inputs; but of queries, keys and values, (D, 3, A, K), the
    first, so that they are one matrix as they are in MAE.
    """
    joint = len(shape) == 4 and shape[1] == 3 and shape[0] == shape[2] * shape[3]
    inputs = shape[0] if joint else math.prod(shape[:-1])
    bound = (6 / (inputs + math.prod(shape) / inputs)) ** 0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)
