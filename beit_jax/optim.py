"""AdamW with BEiT's schedule, decay mask, clipping and layer-wise learning rates."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from beit_jax.config import Plan

Tree = Any

# Parameters that weight decay leaves alone: the official code's "one-dimensional, or
# named bias, cls_token, pos_embed". By name, because stacking makes vectors 2-D.
# mask_token and the tables of relative positions do decay there, so here too. Codes of
# a quantizer do not: they are places among the latents, not weights.
NOT_DECAYED = frozenset(
    ["bias", "scale", "gamma_1", "gamma_2", "q_bias", "v_bias"]
    + ["cls_token", "pos_embed", "embedding"]
)
# Parameters below the first block: layer 0 of layer-wise decay.
EMBEDDINGS = frozenset(["cls_token", "mask_token", "pos_embed", "patch_embed"])


def warmup_cosine(step, plan: Plan, peak: float, final: float, xp=jnp):
    """Learning rate of optimizer step `step` (0-based).

    Both ends of the warm-up are included: step 0 has rate 0, step `warmup - 1` and the
    step after it both have `peak`; the cosine ends at `plan.decay` or, never quite
    reaching `final`, with the run. This is `cosine_scheduler` of the official code.
    With `xp=numpy` it computes in float64.
    """
    rising = peak * step / max(plan.warmup - 1, 1)
    end = plan.total if plan.decay is None else plan.decay
    done = xp.minimum((step - plan.warmup) / (end - plan.warmup), 1)
    falling = final + 0.5 * (peak - final) * (1 + xp.cos(np.pi * done))
    return xp.where(step < plan.warmup, rising, falling)


def decay_mask(params: Tree) -> Tree:
    """True where weight decay applies, by the last part of the parameter's path."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key not in NOT_DECAYED, params
    )


def layer_scales(params: Tree, decay: float) -> Tree:
    """The factor on each parameter's learning rate, `decay ** (L + 1 - layer)`.

    Embeddings are layer 0, block i is layer i + 1, the rest layer L + 1 (factor 1).
    Stacked blocks get a vector (L, 1, ...) that scales each block's slice.

    Raises:
      ValueError: `decay` is not 1 but the parameters have no `blocks`.
    """
    depths = {
        leaf.shape[0]
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if any(part.key == "blocks" for part in path)
    }
    if decay != 1 and len(depths) != 1:
        raise ValueError(
            f"optim.layer_decay={decay} needs an encoder with blocks; set it to 1"
        )
    depth = depths.pop() if depths else 0

    def scale(path, leaf):
        names = {part.key for part in path}
        if "blocks" in names:
            layers = decay ** np.arange(depth, 0, -1, dtype=np.float64)
            return layers.reshape(-1, *[1] * (leaf.ndim - 1)).astype(np.float32)
        return np.float32(decay ** (depth + 1) if names & EMBEDDINGS else 1.0)

    return jax.tree_util.tree_map_with_path(scale, params)


def clip(max_norm: float) -> optax.GradientTransformation:
    """Scales all gradients by min(1, max_norm / (norm + 1e-6)), PyTorch's rule."""

    def update(updates, _):
        scale = jnp.minimum(1.0, max_norm / (optax.global_norm(updates) + 1e-6))
        return jax.tree.map(lambda u: u * scale, updates)

    return optax.stateless(update)


def make(config: ConfigDict, plan: Plan, params: Tree) -> optax.GradientTransformation:
    """The optimizer of a run.

    Args:
      config: the section `optim`.
      params: unboxed parameters or their shapes; decides masks and scales.
    """
    steps = [clip(config.clip_norm)] if config.clip_norm else []
    steps += [
        optax.scale_by_adam(config.b1, config.b2, config.eps),
        optax.add_decayed_weights(config.weight_decay, decay_mask(params)),
    ]
    if config.layer_decay != 1:
        scales = layer_scales(params, config.layer_decay)
        steps.append(
            optax.stateless(
                lambda updates, _: jax.tree.map(jnp.multiply, updates, scales)
            )
        )
    steps.append(
        optax.scale_by_learning_rate(
            lambda step: warmup_cosine(step, plan, config.lr, config.min_lr)
        )
    )
    return optax.chain(*steps)
