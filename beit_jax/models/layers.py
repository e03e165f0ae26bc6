"""The layers of a BEiT encoder, after `beit/modeling_finetune.py` of microsoft/unilm.

Parameters, the residual stream and everything elementwise are float32; `dtype` is that
of the operands of matrix products, whose results come back in float32.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from beit_jax.models import fused, lean, positions
from beit_jax.models.patches import check_sides
from beit_jax.models.positions import Grid
from beit_jax.models.products import product
from beit_jax.sharding import constrain, partitioned

Array = jax.Array
Initializer = nn.initializers.Initializer

zeros = nn.initializers.zeros
# `trunc_normal_(std=.02, a=-.02, b=.02)` of the official pre-training code: cut at one
# sigma, so that the realised standard deviation is 0.0108.
cut_normal = nn.initializers.truncated_normal(0.02, lower=-1.0, upper=1.0)
# `trunc_normal_(std=.02)` of the fine-tuning code: it cuts at +-2, a hundred sigma.
plain_normal = nn.initializers.normal(0.02)


def torch_uniform(inputs: int) -> Initializer:
    """U(-1, 1) / sqrt(inputs), as PyTorch starts kernels and biases alike."""
    bound = inputs**-0.5

    def init(key, shape):
        return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

    return init


class Linear(nn.Module):
    """`x @ kernel + bias`, as the einsum `spec` over (N, *inputs), (*inputs, features).

    `axes` are the logical axes of the kernel.
    """

    features: int
    axes: tuple[str | None, ...]
    dtype: jnp.dtype = jnp.float32
    spec: str = "ni,io->no"
    kernel_init: Initializer = cut_normal
    bias_init: Initializer = zeros

    @nn.compact
    def __call__(self, x: Array, init_scale: Array | float = 1.0) -> Array:
        """(..., *inputs) -> (..., features), both float32."""
        lead, inputs = x.shape[: 1 - len(self.axes)], x.shape[1 - len(self.axes) :]

        def init(key, shape):
            return self.kernel_init(key, shape) * init_scale

        shape = (*inputs, self.features)
        kernel = self.param("kernel", partitioned(init, *self.axes), shape)
        bias_init = partitioned(self.bias_init, self.axes[-1])
        bias = self.param("bias", bias_init, shape[-1:])
        y = product(self.spec, x.reshape(-1, *inputs), kernel, self.dtype)
        return y.reshape(*lead, self.features) + bias


class PatchEmbed(nn.Module):
    """Cuts an image into square patches and projects each to `dim` features.

    With `torch_init` kernel and bias start as PyTorch's convolutions do: the official
    fine-tuning code leaves them so; a kernel with a `kernel_init` does not.
    """

    dim: int
    patch_size: int = 16
    dtype: jnp.dtype = jnp.float32
    torch_init: bool = False
    kernel_init: Initializer | None = None

    @nn.compact
    def __call__(self, image: Array) -> Array:
        """(B, H, W, 3) -> (B, h, w, dim) float32.

        Raises:
          ValueError: a side of the image that is no multiple of `patch_size`.
        """
        batch, height, width, channels = image.shape
        size = self.patch_size
        check_sides(image, size)
        # A convolution whose stride is its kernel is one product of whole patches.
        patches = image.reshape(
            batch, height // size, size, width // size, size, channels
        ).transpose(0, 1, 3, 2, 4, 5)
        axes, spec = (None, None, None, "embed"), "nyxc,yxcd->nd"
        inits = cut_normal, zeros
        if self.torch_init:
            inits = 2 * (torch_uniform(channels * size**2),)
            inits = self.kernel_init or inits[0], inits[1]
        return Linear(self.dim, axes, self.dtype, spec, *inits, name="proj")(patches)


class RelPosBias(nn.Module):
    """A learned bias for each head and each offset between two tokens of `grid`."""

    grid: Grid
    heads: int

    @nn.compact
    def __call__(self, seen: Grid) -> Array:
        """(A, 1+N, 1+N) float32, to be added to attention logits.

        Args:
          seen: the grid of the image; where it is another one, the table is resized.
        """
        shape = (positions.offset_rows(self.grid), self.heads)
        table = self.param("table", partitioned(zeros, None, "heads"), shape)
        if seen != tuple(self.grid):
            table = positions.resize_offsets(table, self.grid, seen)
        return table[positions.relative_position_index(seen)].transpose(2, 0, 1)


class Attention(nn.Module):
    """Multi-head self-attention; keys have no bias, which softmax would cancel.

    Attributes:
      qkv_bias: queries and values have biases.
      grid: gives the layer a position-bias table of its own, made for that grid.
      seen: the grid of the image, for that table; None: the same.
      fused: in one kernel, which has no weights to return.
    """

    heads: int
    qkv_bias: bool = True
    grid: Grid | None = None
    seen: Grid | None = None
    fused: bool = False
    dtype: jnp.dtype = jnp.float32
    kernel_init: Initializer = cut_normal

    @nn.compact
    def __call__(
        self, x: Array, bias: Array | None, init_scale: Array | float
    ) -> tuple[Array, Array | None]:
        """(B, T, D), bias (A, T, T) of the logits -> (B, T, D), weights (B, A, T, T).

        Both are float32. Weights [b, a, q] are those of query q, and sum to 1.
        """
        batch, tokens, dim = x.shape
        head = (self.heads, dim // self.heads)
        axes = ("embed", None, "heads", None)
        kernel_init = partitioned(self.kernel_init, *axes)
        kernel = self.param("qkv", kernel_init, (dim, 3, *head))
        q_bias = v_bias = 0.0
        if self.qkv_bias:
            q_bias = self.param("q_bias", partitioned(zeros, "heads", None), head)
            v_bias = self.param("v_bias", partitioned(zeros, "heads", None), head)
        if self.grid is not None:
            table = RelPosBias(self.grid, self.heads, name="rel_pos_bias")
            bias = table(self.seen or self.grid)

        qkv = product("nd,dsak->nsak", x.reshape(-1, dim), kernel, self.dtype)
        qkv = qkv.reshape(batch, tokens, 3, *head)
        # Of slices the gradient would be a sum of padded ones.
        query, key, value = (part.squeeze(2) for part in jnp.split(qkv, 3, axis=2))
        query, value = query + q_bias, value + v_bias
        if self.fused:
            x, weights = fused.attend(query, key, value, bias, self.dtype), None
        else:
            query = query * head[1] ** -0.5
            logits = product("bqak,bsak->baqs", query, key, self.dtype)
            logits = logits if bias is None else logits + bias
            x, weights = lean.attend(logits, value, self.dtype)
        axes, spec = ("heads", None, "embed"), "nak,akd->nd"
        proj = Linear(dim, axes, self.dtype, spec, self.kernel_init, name="proj")
        return proj(x, init_scale), weights


class Mlp(nn.Module):
    """Two linear layers with an exact (erf) GELU between them, or CLIP's quick one."""

    hidden: int
    dtype: jnp.dtype = jnp.float32
    kernel_init: Initializer = cut_normal
    quick: bool = False

    @nn.compact
    def __call__(self, x: Array, init_scale: Array | float) -> Array:
        """(B, T, D) -> (B, T, D) float32."""
        wide, narrow = ("embed", "mlp"), ("mlp", "embed")
        form = {"dtype": self.dtype, "kernel_init": self.kernel_init}
        y = Linear(self.hidden, wide, name="fc1", **form)(x)
        y = y * nn.sigmoid(1.702 * y) if self.quick else lean.gelu(y, self.dtype)
        return Linear(x.shape[-1], narrow, name="fc2", **form)(y, init_scale)


class DropPath(nn.Module):
    """Drops a residual branch for whole examples; the kept ones are scaled up."""

    @nn.compact
    def __call__(self, x: Array, rate: Array) -> Array:
        """(B, ...) -> (B, ...); draws from the rng collection "drop_path"."""
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        kept = jax.random.bernoulli(self.make_rng("drop_path"), 1 - rate, shape)
        # The gradient keeps a number an example; of a `where` it would one a feature.
        # What is not finite stays so where it is dropped: such a step is not taken.
        return x / jnp.where(kept, 1 - rate, jnp.inf)


class LayerNorm(nn.Module):
    """Layer normalisation over the last dimension.

    `dtype` is that of what is kept for its gradient.
    """

    eps: float = 1e-6
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(..., D) of any float dtype -> (..., D) float32."""
        x = x.astype(jnp.float32)
        ones = nn.initializers.ones
        scale = self.param("scale", partitioned(ones, "embed"), x.shape[-1:])
        bias = self.param("bias", partitioned(zeros, "embed"), x.shape[-1:])
        return lean.layer_norm(x, scale, bias, self.eps, self.dtype)


class Block(nn.Module):
    """One transformer block: pre-norm attention and MLP, each with a residual.

    Attributes:
      layer_scale: initial value of the gammas; with 0 there are none.
      grid, seen: see `Attention`.
      drops: drop-path is on.
      tapped: return the output a second time, for `nn.scan` to stack.
      attends: queries whose attention weights are returned, to be stacked too: those
        of all would take more memory than all else.
      fused: attend in one kernel, unless weights are asked for.
      quick: CLIP's approximation of GELU.
    """

    heads: int
    mlp_ratio: float = 4.0
    layer_scale: float = 0.1
    norm_eps: float = 1e-6
    qkv_bias: bool = True
    grid: Grid | None = None
    seen: Grid | None = None
    drops: bool = False
    tapped: bool = False
    attends: tuple[int, ...] = ()
    fused: bool = False
    quick: bool = False
    dtype: jnp.dtype = jnp.float32
    kernel_init: Initializer = cut_normal

    @nn.compact
    def __call__(
        self, x: Array, layer: tuple[Array, Array], bias: Array | None
    ) -> tuple[Array, tuple[Array | None, Array | None]]:
        """(B, T, D) float32 -> the same; `layer` is (number from 1, drop-path rate)."""
        number, rate = layer
        init_scale = jax.lax.rsqrt(2.0 * number)  # the official fix_init_weight
        form = {"dtype": self.dtype, "kernel_init": self.kernel_init}
        fused = self.fused and not self.attends
        attention = Attention(
            self.heads, self.qkv_bias, self.grid, self.seen, fused, name="attn", **form
        )
        hidden = int(x.shape[-1] * self.mlp_ratio)
        mlp = Mlp(hidden, quick=self.quick, name="mlp", **form)

        x = constrain(x, "batch", None, None)
        y = LayerNorm(self.norm_eps, self.dtype, name="norm1")(x)
        y, weights = attention(y, bias, init_scale)
        x = x + self._scale_and_drop(y, "gamma_1", rate)
        y = LayerNorm(self.norm_eps, self.dtype, name="norm2")(x)
        x = x + self._scale_and_drop(mlp(y, init_scale), "gamma_2", rate)
        asked = weights[:, :, np.array(self.attends)] if self.attends else None
        return x, (x if self.tapped else None, asked)

    def _scale_and_drop(self, x: Array, name: str, rate: Array) -> Array:
        if self.layer_scale:
            init = partitioned(nn.initializers.constant(self.layer_scale), "embed")
            x = lean.scale(x, self.param(name, init, x.shape[-1:]), self.dtype)
        return DropPath()(x, rate) if self.drops else x
