"""Functions whose gradients keep little of what they compute, in `dtype`.

One array each, and `attend` the two operands of its product; autodiff would keep two to
four, in float32, and a training step is bound by the memory that it writes and reads.
Values are those of the plain formulas, to the last bit. There is no forward mode (jvp).
"""

import functools

import jax
import jax.numpy as jnp

from beit_jax.models.products import product_gradients

Array = jax.Array

ATTEND = "baqs,bsak->bqak"


def sum_of_rows(x: Array) -> Array:
    """(..., D) -> (D,)."""
    return x.sum(tuple(range(x.ndim - 1)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def gelu(x: Array, dtype: jnp.dtype) -> Array:
    """The exact GELU of a float32 array; `x` is kept, rounded to `dtype`."""
    return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))  # jax.nn.gelu's erfc is slower


def _gelu_forward(x, dtype):
    return gelu(x, dtype), x.astype(dtype)


def _gelu_backward(dtype, x, gradient):
    x = x.astype(jnp.float32)
    below = 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))
    density = (2 * jnp.pi) ** -0.5 * jnp.exp(-0.5 * x * x)
    return (gradient * (below + x * density),)


gelu.defvjp(_gelu_forward, _gelu_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def layer_norm(x: Array, scale: Array, bias: Array, eps: float, dtype) -> Array:
    """Normalises the last dimension of (..., D) float32; scale and bias are (D,).

    What is kept is the normalised x, rounded to `dtype`, and each row's deviation.
    """
    return _layer_norm_forward(x, scale, bias, eps, dtype)[0]


def _layer_norm_forward(x, scale, bias, eps, dtype):
    x = x - x.mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + eps)
    x = x * inverse
    return x * scale + bias, (x.astype(dtype), inverse, scale)


def _layer_norm_backward(eps, dtype, kept, gradient):
    x, inverse, scale = kept
    x = x.astype(jnp.float32)
    by_scale, by_bias = sum_of_rows(gradient * x), sum_of_rows(gradient)
    gradient = gradient * scale
    mean, along = (part.mean(-1, keepdims=True) for part in (gradient, gradient * x))
    return inverse * (gradient - mean - x * along), by_scale, by_bias


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def scale(x: Array, gamma: Array, dtype: jnp.dtype) -> Array:
    """(..., D) float32 times gamma (D,); `x` is kept, rounded to `dtype`."""
    return x * gamma


def _scale_forward(x, gamma, dtype):
    return x * gamma, (x.astype(dtype), gamma)


def _scale_backward(dtype, kept, gradient):
    x, gamma = kept
    return gradient * gamma, sum_of_rows(gradient * x.astype(jnp.float32))


scale.defvjp(_scale_forward, _scale_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def attend(logits: Array, value: Array, dtype: jnp.dtype) -> tuple[Array, Array]:
    """Mean of the values (B, S, A, K) by softmax of (B, A, Q, S): (B, Q, A, K).

    And those weights, (B, A, Q, S); all are float32. Kept are the operands of their
    product.
    """
    return _attend_forward(logits, value, dtype)[0]


def _attend_forward(logits, value, dtype):
    weights = jax.nn.softmax(logits)
    operands = weights.astype(dtype), value.astype(dtype)
    x = jnp.einsum(ATTEND, *operands, preferred_element_type=jnp.float32)
    return (x, weights), operands


def _attend_backward(dtype, operands, gradients):
    gradient, by_weights = gradients
    by_product, by_value = product_gradients(ATTEND, dtype, operands, gradient)
    weights, by_weights = operands[0].astype(jnp.float32), by_weights + by_product
    along = (by_weights * weights).sum(-1, keepdims=True)
    return weights * (by_weights - along), by_value


attend.defvjp(_attend_forward, _attend_backward)
