"""The networks between images and the latents of a VQ-VAE."""

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


def space_to_depth(x: Array) -> Array:
    """(B, 2h, 2w, C) -> (B, h, w, 4C): each square of four pixels becomes one."""
    batch, height, width, dim = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, dim).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height // 2, width // 2, 4 * dim)


def depth_to_space(x: Array) -> Array:
    """(B, h, w, 4C) -> (B, 2h, 2w, C): undoes `space_to_depth`."""
    batch, height, width, dim = x.shape
    x = x.reshape(batch, height, width, 2, 2, dim // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, 2 * height, 2 * width, dim // 4)


class ConvTranspose(nn.Module):
    """PyTorch's `ConvTranspose2d(features, 4, stride=2, padding=1)`.

    Input pixel i adds its product with tap k to output pixel 2i + k - 1. As two taps
    along a side meet in an output pixel, a 2x2 convolution to the four pixels of a
    square computes the same. On a CPU its gradient is 5 to 50 times as fast as that of
    a convolution of the input with zeros in between.
    """

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(B, h, w, C) -> (B, 2h, 2w, features) `dtype`; the kernel is (4, 4, C, F)."""
        dim, features = x.shape[-1], self.features
        # Each output pixel is the sum of a quarter of the taps.
        init = nn.initializers.variance_scaling(4.0, "fan_in", "truncated_normal")
        kernel = self.param("kernel", init, (4, 4, dim, features))
        bias = self.param("bias", nn.initializers.zeros, (features,))
        # Pixel 2t + a of the squares, which begin at -1, is the sum over i = t - 1 + p
        # of taps 2 (1 - p) + a.
        kernel = kernel.reshape(2, 2, 2, 2, dim, features)[::-1, :, ::-1]
        kernel = kernel.transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, dim, 4 * features)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        layout = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=layout
        )
        return depth_to_space(x)[:, 1:-1, 1:-1] + bias


class ResBlock(nn.Module):
    """`x + conv1x1(relu(conv3x3(relu(x))))`.

    Attributes:
      hidden: features of the 3x3 convolution.
      in_place: relu(x) takes the place of x in the sum too, and there are no biases;
        what becomes of this block in PyTorch with an in-place ReLU.
    """

    hidden: int
    in_place: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        settings = {"use_bias": not self.in_place, "dtype": self.dtype}
        active = nn.relu(x)
        y = nn.Conv(self.hidden, (3, 3), **settings, name="conv3x3")(active)
        y = nn.Conv(x.shape[-1], (1, 1), **settings, name="conv1x1")(nn.relu(y))
        return (active if self.in_place else x) + y


class Network(nn.Module):
    """What both directions of both networks have.

    Attributes:
      stages: how often a side is halved, or doubled.
      width: features at the patch grid; each halving before it has half as many.
      res_blocks, res_hidden: how many residual blocks, and the features inside one.
      dtype: of the convolutions' operands.
    """

    stages: int
    width: int
    res_blocks: int
    res_hidden: int
    dtype: jnp.dtype

    def _residual(self, x: Array, in_place: bool = False) -> Array:
        for i in range(self.res_blocks):
            x = ResBlock(self.res_hidden, in_place, self.dtype, name=f"block_{i}")(x)
        return x


class PatchDown(Network):
    """Image -> latents: halves the sides `stages` times, then residual blocks.

    A 2x2 convolution of stride 2 is written as `space_to_depth` and a product.
    """

    dim: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(B, H, W, 3) -> (B, h, w, dim) float32."""
        for stage in reversed(range(self.stages)):
            x = space_to_depth(x)
            name = f"down_{2 ** (self.stages - stage)}"
            x = nn.Dense(self.width >> stage, dtype=self.dtype, name=name)(x)
            x = nn.relu(x) if stage else x
        x = self._residual(x)
        x = nn.Dense(self.dim, dtype=self.dtype, name="to_code")(nn.relu(x))
        return x.astype(jnp.float32)


class PatchUp(Network):
    """Codes -> image: the mirror of `PatchDown`."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(B, h, w, C) -> (B, H, W, 3) float32."""
        x = nn.Dense(self.width, dtype=self.dtype, name="from_code")(x)
        x = self._residual(x)
        for stage in range(1, self.stages + 1):
            dim = self.width >> stage if stage < self.stages else 3
            name = f"up_{2 ** (self.stages - stage)}"
            x = nn.Dense(4 * dim, dtype=self.dtype, name=name)(nn.relu(x))
            x = depth_to_space(x)
        return x.astype(jnp.float32)


class ConvDown(Network):
    """Image -> latents by convolutions whose fields overlap: DeepMind's VQ-VAE.

    As its PyTorch ports have it, whose residual blocks are `in_place`.
    """

    dim: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(B, H, W, 3) -> (B, h, w, dim) float32."""
        for stage in reversed(range(self.stages)):
            name = f"down_{2 ** (self.stages - stage)}"
            size = (self.width >> stage, (4, 4), (2, 2))
            x = nn.relu(nn.Conv(*size, dtype=self.dtype, name=name)(x))
        x = nn.Conv(self.width, (3, 3), dtype=self.dtype, name="conv3x3")(x)
        x = self._residual(x, in_place=True)
        x = nn.Conv(self.dim, (1, 1), dtype=self.dtype, name="to_code")(nn.relu(x))
        return x.astype(jnp.float32)


class ConvUp(Network):
    """Codes -> image: the mirror of `ConvDown`."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(B, h, w, C) -> (B, H, W, 3) float32."""
        x = nn.Conv(self.width, (3, 3), dtype=self.dtype, name="from_code")(x)
        x = self._residual(x, in_place=True)
        for stage in range(1, self.stages + 1):
            dim = self.width >> stage if stage < self.stages else 3
            name = f"up_{2 ** (self.stages - stage)}"
            x = ConvTranspose(dim, self.dtype, name=name)(nn.relu(x))
        return x.astype(jnp.float32)


NETWORKS = {"patches": (PatchDown, PatchUp), "convolutions": (ConvDown, ConvUp)}
