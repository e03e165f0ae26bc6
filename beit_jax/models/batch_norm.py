"""Batch normalisation by PyTorch's conventions, over the batch of all devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from beit_jax.sharding import partitioned

Array = jax.Array


class BatchNorm(nn.Module):
    """Normalises each feature over the batch and the grid.

    A mean over a sharded batch is one over all its devices: `SyncBatchNorm`, without
    asking for it. Means and variances of the past, what an evaluation sees, are the
    collection "batch_stats". As in PyTorch, the batch is normalised by its biased
    variance, and the unbiased one is remembered.

    Attributes:
      momentum: share of a batch in what is remembered (flax counts the other one).
    """

    eps: float = 1e-5
    momentum: float = 0.1

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        """(B, h, w, D) of any float dtype -> (B, h, w, D) float32.

        Raises:
          ValueError: training on a single value of each feature.
        """
        x, shape = x.astype(jnp.float32), x.shape[-1:]
        scale = self.param("scale", partitioned(nn.initializers.ones, "mlp"), shape)
        bias = self.param("bias", partitioned(nn.initializers.zeros, "mlp"), shape)
        past_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        past_var = self.variable("batch_stats", "var", jnp.ones, shape)
        mean, var = past_mean.value, past_var.value
        if train:
            count = x.size // x.shape[-1]
            if count < 2:
                raise ValueError(
                    f"batch norm {self.name!r} sees one value of each feature, which "
                    "has no variance; train on batches of 2 images or more"
                )
            axes = tuple(range(x.ndim - 1))
            mean = x.mean(axes)
            var = jnp.square(x - mean).mean(axes)
            unbiased = var * count / (count - 1)
            past_mean.value += self.momentum * (mean - past_mean.value)
            past_var.value += self.momentum * (unbiased - past_var.value)
        return (x - mean) * (jax.lax.rsqrt(var + self.eps) * scale) + bias
