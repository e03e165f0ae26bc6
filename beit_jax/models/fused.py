"""Attention in one kernel, where cuDNN has it; the same formula by XLA elsewhere."""

import jax
import jax.numpy as jnp

Array = jax.Array

MULTIPLE = 64  # of tokens: cuDNN's gradient of a bias wants whole tiles
FAR = -1e9  # logit of a token that is padding; of -inf gradients would be NaN


def attend(
    query: Array, key: Array, value: Array, bias: Array | None, dtype: jnp.dtype
) -> Array:
    """Softmax attention of (B, T, A, K) with bias (A, T, T): (B, T, A, K) float32.

    Logits are the products over the root of K, and bias. Operands, bias and result are
    rounded to `dtype`; cuDNN takes bfloat16 alone.
    """
    tokens = query.shape[1]
    more = -tokens % MULTIPLE
    query, key, value = (
        jnp.pad(part.astype(dtype), ((0, 0), (0, more), (0, 0), (0, 0)))
        for part in (query, key, value)
    )
    if bias is None:
        bias = jnp.zeros((1, tokens, tokens))
    bias = jnp.pad(bias, ((0, 0), (0, more), (0, 0)))
    bias = jnp.pad(bias, ((0, 0), (0, 0), (0, more)), constant_values=FAR)
    cudnn = jax.default_backend() == "gpu" and dtype == jnp.bfloat16
    x = jax.nn.dot_product_attention(
        query,
        key,
        value,
        jnp.broadcast_to(bias, (query.shape[2], *bias.shape[1:])).astype(dtype)[None],
        implementation="cudnn" if cudnn else "xla",
    )
    return x[:, :tokens].astype(jnp.float32)
