"""Matrix products with operands of few bits and float32 results."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

Array = jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def product(spec: str, x: Array, y: Array, dtype: jnp.dtype) -> Array:
    """`einsum(spec, x, y)`, float32 in and out, its operands rounded to `dtype`.

    The operands of its gradients are rounded too, where autodiff would have a float32
    one. Each index must occur in two of the three parts of spec, as in "ni,io->no".
    Merge leading dimensions of x that y does not have: XLA's CPU backend is 1.6 times
    faster on the two-dimensional product.
    """
    return _product_forward(spec, x, y, dtype)[0]


def _product_forward(spec, x, y, dtype):
    x, y = x.astype(dtype), y.astype(dtype)
    return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32), (x, y)


def product_gradients(
    spec: str, dtype: jnp.dtype, operands: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    """float32 gradients of a `product` by its operands, given those in `dtype`."""
    x, y = operands
    gradient = gradient.astype(dtype)
    left, right, out = spec.replace("->", ",").split(",")

    def einsums(result):
        einsum = functools.partial(jnp.einsum, preferred_element_type=result)

        def gradients(x, y, gradient):
            dx = einsum(f"{out},{right}->{left}", gradient, y)
            dy = einsum(f"{left},{out}->{right}", x, gradient)
            return dx.astype(jnp.float32), dy.astype(jnp.float32)

        return gradients

    exact = einsums(jnp.float32)
    if dtype == jnp.float32:
        return exact(x, y, gradient)
    # XLA's CPU backend lacks bfloat16 products with a float32 result that come out
    # transposed, as these may, and says so only when it runs them (jax 0.10).
    cpu = einsums(dtype)
    if _one_device() and dtype == jnp.bfloat16 and left[1:] + out[1:] == right:
        cpu = _matrix_gradients
    # Decided when it is lowered: what is traced here may be compiled for another
    # platform than this process has.
    return jax.lax.platform_dependent(x, y, gradient, cpu=cpu, default=exact)


def _one_device() -> bool:
    """Whether the mesh, or without one the process, has a single device."""
    mesh = jax.sharding.get_abstract_mesh()
    return (jax.device_count() if mesh.empty else mesh.size) == 1


def _matrix_gradients(x: Array, y: Array, gradient: Array) -> tuple[Array, Array]:
    """Gradients of `x @ y`, x (N, *inputs), y (*inputs, *outputs), in bfloat16.

    XLA's CPU backend uses the matrix units only for operands that lie row by row in
    memory and a float32 result; then it is 4 to 6 times as fast. Not over several
    devices: a layout that is asked for cannot be partitioned.
    """

    def row_major(x: Array) -> Array:
        return with_layout_constraint(x, Layout((0, 1)))

    rows, inputs = len(x), math.prod(x.shape[1:])
    gradient = gradient.reshape(rows, -1)
    dot = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)
    dx = dot(gradient, row_major(y.reshape(inputs, -1).T))
    dy = dot(row_major(x.reshape(rows, inputs).T), gradient)
    return row_major(dx).reshape(x.shape), row_major(dy).reshape(y.shape)


product.defvjp(_product_forward, product_gradients)
