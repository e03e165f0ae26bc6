"""The layers of a ViT's parameters by their names, as the official code has them."""

import jax
import numpy as np

EMBEDDINGS = {"cls_token", "mask_token", "pos_embed", "patch_embed"}


def layers(params):
    """What `Task.layers` is to say of a task with one encoder; all 0 without blocks."""
    paths = [(path, leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)]
    depths = [leaf.shape[0] for path, leaf in paths if _has(path, {"blocks"})]

    def number(path, leaf):
        if _has(path, {"blocks"}):
            return np.arange(1, depths[0] + 1).reshape(-1, *[1] * (leaf.ndim - 1))
        return np.array(0 if _has(path, EMBEDDINGS) or not depths else depths[0] + 1)

    return jax.tree_util.tree_map_with_path(number, params)


def _has(path, names) -> bool:
    return any(part.key in names for part in path)
