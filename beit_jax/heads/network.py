"""A backbone and a head as one module."""

from typing import Any

import flax.linen as nn
import jax

Array = jax.Array
Tree = Any


class Network(nn.Module):
    """Image -> what the head makes of it.

    Parameters lie side by side: {"encoder": ..., and the head's own names}, "fc_norm"
    and "head" of a `LinearHead`, "lm_head" of a `TokenHead`. So do other collections.
    """

    encoder: nn.Module  # one of BACKBONES
    output: nn.Module  # one of HEADS; not called head: a LinearHead has a layer "head"

    def setup(self):
        nn.share_scope(self, self.output)

    def __call__(
        self,
        image: Array,
        mask: Array | None = None,
        index: Array | None = None,
        *,
        visible: Array | None = None,
        train: bool = False,
    ) -> Array:
        """What the head gives: (B, C) logits of classes, (B, N, V) of tokens; float32.

        Args:
          image, mask, visible, train: as the backbone has them.
          index: (B, K) int, the patches that the head sees; None: all.
        """
        features = self.encoder(image, mask, train=train, **_only(visible))
        return self.output(features.at(index), train=train)


def apply(
    network: Network,
    variables: Tree,
    image: Array,
    mask: Array | None = None,
    index: Array | None = None,
    *,
    visible: Array | None = None,
    rngs: dict[str, Array] | None = None,
) -> tuple[Array, Tree]:
    """As `network.apply`, and its other collections after that; trains with `rngs`.

    Backbone and head are applied one after the other: what a backbone draws must not
    depend on the module that it stands in.
    """
    train, kinds = rngs is not None, variables.keys() - {"params"}
    mutable = sorted(kinds) if train else []
    below = {kind: tree.get("encoder", {}) for kind, tree in variables.items()}
    features, encoder = network.encoder.apply(
        below,
        image,
        mask,
        train=train,
        rngs=rngs,
        mutable=mutable,
        **_only(visible),
    )
    made, head = network.output.apply(
        variables, features.at(index), train=train, rngs=rngs, mutable=mutable
    )
    after = {
        kind: {**head.get(kind, {}), **_below(encoder.get(kind))} for kind in mutable
    }
    return made, after or {kind: variables[kind] for kind in kinds}


def _only(visible: Array | None) -> dict[str, Array]:
    """For a backbone that may not know of leaving patches out."""
    return {} if visible is None else {"visible": visible}


def _below(collection: Tree | None) -> Tree:
    return {"encoder": collection} if collection else {}


def start(network: Network, rng: Array, image: Array) -> Tree:
    """Fresh variables, boxed with logical axes.

    Backbone and head draw from keys of their own: a head that is exchanged leaves the
    backbone's start as it is.
    """
    encoder_rng, head_rng = jax.random.split(rng)
    encoder = network.encoder.init(encoder_rng, image)
    features = network.encoder.apply(encoder, image)
    head = network.output.init(head_rng, features)
    return {
        kind: {**_below(encoder.get(kind)), **head.get(kind, {})}
        for kind in dict.fromkeys([*encoder, *head])
    }
