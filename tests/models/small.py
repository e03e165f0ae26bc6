"""A small encoder with random parameters: zero tables would hide mistakes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from beit_jax.models.vit import Encoder

SMALL = {"grid": (2, 3), "dim": 16, "depth": 2, "heads": 2, "patch_size": 4}
IMAGE = jax.random.normal(jax.random.key(7), (4, 8, 12, 3))


def make(**settings):
    """(an encoder, its parameters)."""
    model = Encoder(**{**SMALL, **settings})
    shapes = nn.unbox(sizes(model, IMAGE))
    rng = np.random.default_rng(0)
    return model, jax.tree.map(
        lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), shapes
    )


def features(model, params, *args, seed=None):
    """What the model returns; with a seed, as in training."""

    @jax.jit
    def apply(params, args):
        rngs = {} if seed is None else {"drop_path": jax.random.key(seed)}
        train = seed is not None
        return model.apply({"params": params}, *args, train=train, rngs=rngs)

    return apply(params, args)


def tokens(*args, **kwargs):
    return features(*args, **kwargs).tokens


def hidden(features):
    """(T, B, 1+N, D), the tapped outputs."""
    return jnp.stack([stage.tokens for stage in features.taps])


def sizes(model, image):
    """Boxed shapes of the parameters."""
    return jax.eval_shape(model.init, jax.random.key(0), image)["params"]
