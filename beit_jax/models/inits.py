"""How kernels start that are not drawn from normals."""

import math

import jax

Array = jax.Array

UNSCALED = 0.5  # as its number, the block whose weights start as they are drawn


def xavier(key: Array, shape: tuple[int, ...]) -> Array:
    """U(-1, 1) * sqrt(6 / (inputs + outputs)), as MAE does (arXiv:2111.06377, A.1).

    All axes but the last are inputs; but of queries, keys and values, (D, 3, A, K), the
    first, so that they are one matrix as they are in MAE.
    """
    joint = len(shape) == 4 and shape[1] == 3 and shape[0] == shape[2] * shape[3]
    inputs = shape[0] if joint else math.prod(shape[:-1])
    bound = (6 / (inputs + math.prod(shape) / inputs)) ** 0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def torch_kernel(key: Array, shape: tuple[int, ...]) -> Array:
    """Kernels of a Block as PyTorch starts them: U(-1, 1) / sqrt(inputs).

    BEiT v2's official code leaves those of its second prediction so, made after all
    others have started. (There biases start so, too; here at 0.)
    """
    # That of queries, keys and values is (inputs, 3, heads, features of one).
    inputs = shape[0] if len(shape) == 4 else math.prod(shape[:-1])
    bound = inputs**-0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)
