"""How far vectors are from others: (..., D) each -> (...)."""

import jax
import jax.numpy as jnp

Array = jax.Array


def mse(found: Array, wanted: Array) -> Array:
    return jnp.mean(jnp.square(found - wanted), axis=-1)


def l1(found: Array, wanted: Array) -> Array:
    return jnp.mean(jnp.abs(found - wanted), axis=-1)


def smooth_l1(found: Array, wanted: Array, beta: float) -> Array:
    """PyTorch's SmoothL1Loss, which is a square below `beta` and a line beyond it."""
    far = jnp.abs(found - wanted)
    each = jnp.where(far < beta, 0.5 * far**2 / beta, far - 0.5 * beta)
    return jnp.mean(each, axis=-1)


def cosine(found: Array, wanted: Array) -> Array:
    """1 less their cosine."""
    return 1 - jnp.sum(_unit(found) * _unit(wanted), axis=-1)


def _unit(x: Array) -> Array:
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-16))
