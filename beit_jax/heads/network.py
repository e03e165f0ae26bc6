"""An encoder and a head as one module."""

import flax.linen as nn
import jax

from beit_jax.heads.linear import LinearHead
from beit_jax.heads.tokens import TokenHead
from beit_jax.models.vit import Encoder

Array = jax.Array


class Network(nn.Module):
    """Image -> what the head makes of it.

    Parameters lie side by side as tasks keep them: {"encoder": ..., "fc_norm": ...,
    "head": ...} with a `LinearHead`, {"encoder": ..., "lm_head": ...} with a
    `TokenHead`.
    """

    encoder: Encoder
    output: LinearHead | TokenHead  # not called head: a LinearHead has a layer "head"

    def setup(self):
        nn.share_scope(self, self.output)

    def __call__(
        self, image: Array, mask: Array | None = None, *, train: bool = False
    ) -> Array:
        """(B, C) logits of classes, or (B, N, V) of the tokens of all patches; float32.

        Args: as `Encoder` has them.
        """
        tokens = self.encoder(image, mask, train=train).tokens
        of_patches = isinstance(self.output, TokenHead)
        return self.output(tokens[:, 1:] if of_patches else tokens)
