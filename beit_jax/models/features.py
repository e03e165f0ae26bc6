"""What a backbone returns, whatever its kind."""

import flax
import jax
import jax.numpy as jnp

Array = jax.Array


@flax.struct.dataclass
class Stage:
    """Features on one grid of patches.

    Attributes:
      patches: (B, N, D), row by row; h * w of them unless some were left out.
      cls: (B, D), of [CLS]; None where a backbone has none.
      grid: (h, w)
      places: (B, N) int, which patches of the grid these are, where others were left
        out; None: where none were.
    """

    patches: Array
    cls: Array | None
    grid: tuple[int, int] = flax.struct.field(pytree_node=False)
    places: Array | None = None

    @property
    def tokens(self) -> Array:
        """(B, 1+N, D), [CLS] first."""
        return jnp.concatenate([self.cls[:, None], self.patches], axis=1)

    def at(self, index: Array) -> "Stage":
        """With the patches at `index` (B, K) only, in that order."""
        chosen = jnp.take_along_axis(self.patches, index[..., None], axis=1)
        return self.replace(patches=chosen)


@flax.struct.dataclass
class Features:
    """Of a batch of images.

    Attributes:
      last: after the last norm; raw where there is none.
      taps: raw float32 outputs of the blocks that were asked for. A ViT's have the grid
        of `last`, those of a hierarchical backbone one each.
      bias: (A, 1+N, 1+N), what a ViT's blocks share and add to their attention logits.
      attention: (L, B, A, Q, 1+N) float32, by block, head, asked query, key; rows sum
        to 1.
      norm: {"scale": (D,), "bias": (D,)} of the last norm, for what a head makes of
        taps; None where there is none.
      index: (B, K) int, the patches that a head is to predict; None: all.
    """

    last: Stage
    taps: tuple[Stage, ...] = ()
    bias: Array | None = None
    attention: Array | None = None
    norm: dict[str, Array] | None = None
    index: Array | None = None

    def at(self, index: Array | None) -> "Features":
        """With the last patches at `index` (B, K) only; None: all of them.

        Where some were left out, those are still to be made: all that there are stay.
        """
        if index is None:
            return self
        last = self.last.at(index) if self.last.places is None else self.last
        return self.replace(last=last, index=index)

    @property
    def tokens(self) -> Array:
        """(B, 1+N, D), those of `last`; [CLS] first."""
        return self.last.tokens

    @property
    def grid(self) -> tuple[int, int]:
        """That of `last`."""
        return self.last.grid
