"""The layers of a BEiT encoder, after `beit/modeling_finetune.py` of microsoft/unilm.

Parameters, the residual stream and everything elementwise are float32; `dtype` is that
of the operands of matrix products, whose results come back in float32.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from beit_jax.sharding import constrain, partitioned

Array = jax.Array

# The official `trunc_normal_(std=.02, a=-.02, b=.02)`: cut at one sigma, so that the
# realised standard deviation is 0.0108.
init_normal = nn.initializers.truncated_normal(0.02, lower=-1.0, upper=1.0)
zeros = nn.initializers.zeros


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def product(spec: str, x: Array, y: Array, dtype: jnp.dtype) -> Array:
    """`einsum(spec, x, y)`, float32 in and out, its operands rounded to `dtype`.

    The operands of its gradients are rounded too, where autodiff would have a float32
    one. Each index must occur in two of the three parts of spec, as in "ni,io->no".
    Merge leading dimensions of x that y does not have: XLA's CPU backend is 1.6 times
    faster on the two-dimensional product.
    """
    x, y = x.astype(dtype), y.astype(dtype)
    return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)


def _product_forward(spec, x, y, dtype):
    x, y = x.astype(dtype), y.astype(dtype)
    return product(spec, x, y, dtype), (x, y)


def _product_backward(spec, dtype, operands, gradient):
    x, y = operands
    gradient = gradient.astype(dtype)
    left, right, out = spec.replace("->", ",").split(",")
    # XLA's CPU backend lacks bfloat16 products with a float32 result that come out
    # transposed, as these may, and says so only when it runs them (jax 0.10).
    result = dtype if jax.default_backend() == "cpu" else jnp.float32
    einsum = functools.partial(jnp.einsum, preferred_element_type=result)
    dx = einsum(f"{out},{right}->{left}", gradient, y)
    dy = einsum(f"{left},{out}->{right}", x, gradient)
    return dx.astype(jnp.float32), dy.astype(jnp.float32)


product.defvjp(_product_forward, _product_backward)


class Linear(nn.Module):
    """`x @ kernel + bias`, as the einsum `spec` over (N, *inputs), (*inputs, features).

    `axes` are the logical axes of the kernel.
    """

    features: int
    axes: tuple[str | None, ...]
    dtype: jnp.dtype = jnp.float32
    spec: str = "ni,io->no"

    @nn.compact
    def __call__(self, x: Array, init_scale: Array | float = 1.0) -> Array:
        """(..., *inputs) -> (..., features), both float32."""
        lead, inputs = x.shape[: 1 - len(self.axes)], x.shape[1 - len(self.axes) :]

        def init(key, shape):
            return init_normal(key, shape) * init_scale

        shape = (*inputs, self.features)
        kernel = self.param("kernel", partitioned(init, *self.axes), shape)
        bias = self.param("bias", partitioned(zeros, self.axes[-1]), shape[-1:])
        y = product(self.spec, x.reshape(-1, *inputs), kernel, self.dtype)
        return y.reshape(*lead, self.features) + bias


class PatchEmbed(nn.Module):
    """Cuts an image into square patches and projects each to `dim` features."""

    dim: int
    patch_size: int = 16
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Array) -> Array:
        """(B, H, W, 3) -> (B, h, w, dim) float32.

        Raises:
          ValueError: a side of the image that is no multiple of `patch_size`.
        """
        batch, height, width, channels = image.shape
        size = self.patch_size
        if height % size or width % size:
            raise ValueError(
                f"image is {height}x{width}; both sides must be multiples of "
                f"patch_size={size}"
            )
        # A convolution whose stride is its kernel is one product of whole patches.
        patches = image.reshape(
            batch, height // size, size, width // size, size, channels
        ).transpose(0, 1, 3, 2, 4, 5)
        axes, spec = (None, None, None, "embed"), "nyxc,yxcd->nd"
        return Linear(self.dim, axes, self.dtype, spec, name="proj")(patches)


def relative_position_index(grid: tuple[int, int]) -> np.ndarray:
    """(1+N, 1+N) rows of the bias table, for [query, key]; token 0 is [CLS].

    Rows count offsets (dy, dx) from (1-h, 1-w) row by row; the last three are
    [CLS] to patch, patch to [CLS] and [CLS] to itself.
    """
    height, width = grid
    y, x = np.divmod(np.arange(height * width), width)
    dy = y[:, None] - y[None, :] + height - 1
    dx = x[:, None] - x[None, :] + width - 1
    rows = (2 * height - 1) * (2 * width - 1)
    index = np.empty((height * width + 1,) * 2, np.int32)
    index[1:, 1:] = dy * (2 * width - 1) + dx
    index[0, 1:], index[1:, 0], index[0, 0] = rows, rows + 1, rows + 2
    return index


class RelPosBias(nn.Module):
    """A learned bias for each head and each offset between two tokens of the grid."""

    grid: tuple[int, int]
    heads: int

    @nn.compact
    def __call__(self) -> Array:
        """(A, 1+N, 1+N) float32, to be added to attention logits."""
        index = relative_position_index(self.grid)
        shape = (int(index.max()) + 1, self.heads)
        table = self.param("table", partitioned(zeros, None, "heads"), shape)
        return table[index].transpose(2, 0, 1)


class Attention(nn.Module):
    """Multi-head self-attention; queries and values have biases, keys have none.

    `grid` gives the layer a position-bias table of its own.
    """

    heads: int
    grid: tuple[int, int] | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Array, bias: Array | None, init_scale: Array | float
    ) -> Array:
        """(B, T, D), bias (A, T, T) of the logits -> (B, T, D) float32."""
        batch, tokens, dim = x.shape
        head = (self.heads, dim // self.heads)
        axes = ("embed", None, "heads", None)
        kernel = self.param("qkv", partitioned(init_normal, *axes), (dim, 3, *head))
        q_bias = self.param("q_bias", partitioned(zeros, "heads", None), head)
        v_bias = self.param("v_bias", partitioned(zeros, "heads", None), head)
        if self.grid is not None:
            bias = RelPosBias(self.grid, self.heads, name="rel_pos_bias")()

        qkv = product("nd,dsak->nsak", x.reshape(-1, dim), kernel, self.dtype)
        qkv = qkv.reshape(batch, tokens, 3, *head)
        query, key, value = (qkv[:, :, i] for i in range(3))
        query = (query + q_bias) * head[1] ** -0.5
        logits = product("bqak,bsak->baqs", query, key, self.dtype)
        weights = jax.nn.softmax(logits if bias is None else logits + bias)
        x = product("baqs,bsak->bqak", weights, value + v_bias, self.dtype)
        axes, spec = ("heads", None, "embed"), "nak,akd->nd"
        return Linear(dim, axes, self.dtype, spec, name="proj")(x, init_scale)


class Mlp(nn.Module):
    """Two linear layers with an exact (erf) GELU between them."""

    hidden: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, init_scale: Array | float) -> Array:
        """(B, T, D) -> (B, T, D) float32."""
        wide, narrow = ("embed", "mlp"), ("mlp", "embed")
        y = Linear(self.hidden, wide, self.dtype, name="fc1")(x)
        y = 0.5 * y * (1 + jax.lax.erf(y * 0.5**0.5))  # jax.nn.gelu's erfc is slower
        return Linear(x.shape[-1], narrow, self.dtype, name="fc2")(y, init_scale)


class DropPath(nn.Module):
    """Drops a residual branch for whole examples; the kept ones are scaled up."""

    @nn.compact
    def __call__(self, x: Array, rate: Array) -> Array:
        """(B, ...) -> (B, ...); draws from the rng collection "drop_path"."""
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        kept = jax.random.bernoulli(self.make_rng("drop_path"), 1 - rate, shape)
        return jnp.where(kept, x / (1 - rate), 0)


class LayerNorm(nn.Module):
    """Layer normalisation over the last dimension."""

    eps: float = 1e-6

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(..., D) of any float dtype -> (..., D) float32."""
        x = x.astype(jnp.float32)
        ones = nn.initializers.ones
        scale = self.param("scale", partitioned(ones, "embed"), x.shape[-1:])
        bias = self.param("bias", partitioned(zeros, "embed"), x.shape[-1:])
        x = x - x.mean(-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.eps)
        return x * scale + bias


class Block(nn.Module):
    """One transformer block: pre-norm attention and MLP, each with a residual.

    Attributes:
      layer_scale: initial value of the gammas; with 0 there are none.
      grid: gives the block a position-bias table of its own.
      drops: drop-path is on.
      tapped: also return the output as the second value, for `nn.scan` to stack.
    """

    heads: int
    mlp_ratio: float = 4.0
    layer_scale: float = 0.1
    norm_eps: float = 1e-6
    grid: tuple[int, int] | None = None
    drops: bool = False
    tapped: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Array, layer: tuple[Array, Array], bias: Array | None
    ) -> tuple[Array, Array | None]:
        """(B, T, D) float32 -> the same; `layer` is (number from 1, drop-path rate)."""
        number, rate = layer
        init_scale = jax.lax.rsqrt(2.0 * number)  # the official fix_init_weight
        hidden = int(x.shape[-1] * self.mlp_ratio)
        attention = Attention(self.heads, self.grid, self.dtype, name="attn")
        mlp = Mlp(hidden, self.dtype, name="mlp")

        x = constrain(x, "batch", None, None)
        y = LayerNorm(self.norm_eps, name="norm1")(x)
        x = x + self._scale_and_drop(attention(y, bias, init_scale), "gamma_1", rate)
        y = LayerNorm(self.norm_eps, name="norm2")(x)
        x = x + self._scale_and_drop(mlp(y, init_scale), "gamma_2", rate)
        return x, (x if self.tapped else None)

    def _scale_and_drop(self, x: Array, name: str, rate: Array) -> Array:
        if self.layer_scale:
            init = partitioned(nn.initializers.constant(self.layer_scale), "embed")
            x = x * self.param(name, init, x.shape[-1:])
        return DropPath()(x, rate) if self.drops else x
