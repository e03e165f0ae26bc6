"""The layers of heads that see a grid as a picture, (B, h, w, D)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from beit_jax.models.batch_norm import BatchNorm
from beit_jax.models.layers import torch_uniform
from beit_jax.models.products import product
from beit_jax.sharding import constrain, partitioned

Array = jax.Array
Initializer = nn.initializers.Initializer

# mmcv's `kaiming_init` of convolutions, and mmseg's start of the last layer.
kaiming = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
last_normal = nn.initializers.normal(0.01)


class Conv(nn.Module):
    """A convolution that keeps the grid: `size` x `size`, zeros around, no bias."""

    features: int
    size: int = 3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(B, h, w, C) -> (B, h, w, features) float32.

        cuDNN gives results in the dtype of its operands: rounded to it where they are
        of more than a pixel.
        """
        shape = (self.size, self.size, x.shape[-1], self.features)
        init = partitioned(kaiming, None, None, "embed", "mlp")
        kernel = gathered(self.param("kernel", init, shape), "mlp")
        if self.size == 1:
            return pixelwise(x, kernel[0, 0], self.dtype)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        layout = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=layout
        )
        return x.astype(jnp.float32)


class ConvNorm(nn.Module):
    """mmcv's `ConvModule`: convolution, batch norm, ReLU."""

    features: int
    size: int = 3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        """(B, h, w, C) -> (B, h, w, features) float32."""
        x = Conv(self.features, self.size, self.dtype, name="conv")(x)
        x = constrain(x, "batch", None, None, "mlp")
        return nn.relu(BatchNorm(name="bn")(x, train=train))


class Classify(nn.Module):
    """mmseg's `conv_seg`: dropout of whole features, then logits of each pixel.

    Attributes:
      dropout: share of an image's features that are dropped; it draws from the rng
        collection "dropout".
    """

    classes: int
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        """(B, h, w, C) -> (B, h, w, classes) float32."""
        drop = nn.Dropout(self.dropout, broadcast_dims=(1, 2), deterministic=not train)
        x = drop(x)
        init = partitioned(last_normal, None, None, "embed", None)
        shape = (1, 1, x.shape[-1], self.classes)
        kernel = gathered(self.param("kernel", init, shape), None)
        bias_init = partitioned(nn.initializers.zeros, None)
        bias = self.param("bias", bias_init, shape[-1:])
        return pixelwise(x, kernel[0, 0], self.dtype) + bias


class ConvTranspose(nn.Module):
    """PyTorch's `ConvTranspose2d(features, 2, stride=2)`, started as it starts.

    Each pixel becomes a square of four by a product of its own.
    """

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(B, h, w, C) -> (B, 2h, 2w, features) float32."""
        batch, height, width, dim = x.shape
        start = torch_uniform(4 * self.features)  # so PyTorch counts its inputs
        init = partitioned(start, None, None, "embed", "mlp")
        kernel = self.param("kernel", init, (2, 2, dim, self.features))
        kernel = gathered(kernel, "mlp")
        bias = self.param("bias", partitioned(start, "mlp"), (self.features,))
        spec = "nc,yxcd->nyxd"
        x = product(spec, x.reshape(-1, dim), kernel, self.dtype)
        x = x.reshape(batch, height, width, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, 2 * height, 2 * width, -1) + bias
        return constrain(x, "batch", None, None, "mlp")


def gathered(kernel: Array, out: str | None) -> Array:
    """A kernel (y, x, in, out) whole but for its outputs, before it meets a batch.

    Of fsdp's parts of the inputs XLA else makes gradients of the batch in parts of
    features, and puts these together in a wrong order (jax 0.10, three mesh axes).
    """
    return constrain(kernel, None, None, None, out)


def pixelwise(x: Array, kernel: Array, dtype: jnp.dtype) -> Array:
    """(B, h, w, C) by (C, D) -> (B, h, w, D) float32."""
    y = product("nc,cd->nd", x.reshape(-1, x.shape[-1]), kernel, dtype)
    return y.reshape(*x.shape[:-1], -1)


def max_pool(x: Array) -> Array:
    """PyTorch's `MaxPool2d(2)`: of squares of four; an odd row or column is cut.

    Raises:
      ValueError: a grid without such a square.
    """
    height, width = (side // 2 * 2 for side in x.shape[1:3])
    if not height or not width:
        raise ValueError(
            f"a grid of {x.shape[1]}x{x.shape[2]} patches cannot be halved; give "
            "images of two patches a side or more"
        )
    x = x[:, :height, :width]
    # Not x.max(): where XLA computes x again, its gradient may find no maximum.
    x = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(x[:, :, ::2], x[:, :, 1::2])


def average_pool(x: Array, bins: int) -> Array:
    """PyTorch's `AdaptiveAvgPool2d(bins)`: (B, h, w, D) -> (B, bins, bins, D)."""
    down, across = (averages(side, bins) for side in x.shape[1:3])
    return jnp.einsum("yi,xj,bijd->byxd", down, across, x, precision="highest")


def averages(side: int, bins: int) -> np.ndarray:
    """(bins, side): the mean of each bin's pixels; bins that `side` is no multiple of
    overlap."""
    first = np.arange(bins) * side // bins
    end = -(-np.arange(1, bins + 1) * side // bins)
    at = np.arange(side)
    inside = (first[:, None] <= at) & (at < end[:, None])
    return (inside / inside.sum(1, keepdims=True)).astype(np.float32)
