"""Recorded runs of PyTorch's heads of segmentation, in the layouts of ours."""

import jax
import jax.numpy as jnp
import numpy as np

from beit_jax.checkpoints.foreign import rules, segment_names
from beit_jax.models.features import Features, Stage
from beit_jax.models.sampling import bilinear
from tests.agreement import assert_agrees


def variables(state: dict, style: str = "official") -> dict:
    """A head's part of a state dict (or of its gradients) -> our collections."""
    found = segment_names.of_state(state, style)
    rows = [(x.theirs, x.ours, x.op) for x in found if x.theirs in state]
    return rules.read(rows, state, allow=("*",))[0]


def under(state: dict, **prefixes: str) -> dict:
    """With other prefixes: old="new." and so on; "" is the prefix of all."""
    for old, new in prefixes.items():
        state = {
            new + name.removeprefix(old): x
            for name, x in state.items()
            if name.startswith(old)
        } | {name: x for name, x in state.items() if not name.startswith(old)}
    return state


def tapped(maps: list) -> Features:
    """Features whose taps are maps (B, D, h, w)."""
    grid = maps[0].shape[2:]
    rows = [x.reshape(*x.shape[:2], -1).swapaxes(1, 2) for x in maps]
    stages = tuple(Stage(x, None, grid) for x in rows)
    return Features(stages[-1], stages)


def cross_entropy(logits, labels, average: str):
    """Mean over "all" pixels or over the "valid" ones; 255 is ignored."""
    logits = bilinear(logits, labels.shape[1:])
    valid = labels != 255
    at = jnp.where(valid, labels, 0)[..., None]
    nats = -jnp.take_along_axis(jax.nn.log_softmax(logits), at, -1)[..., 0]
    return jnp.sum(nats, where=valid) / (
        labels.size if average == "all" else valid.sum()
    )


def nchw(x):
    return np.asarray(x).transpose(0, 3, 1, 2)


def assert_trees_agree(peer: str, what: str, got, want, rtol: float, floor: float):
    """Every leaf's error, as a share of its norm; below the floor it is none."""
    got, want = (dict(jax.tree_util.tree_leaves_with_path(x)) for x in (got, want))
    assert got.keys() == want.keys()

    def error(path):
        difference = np.asarray(got[path], np.float64) - want[path]
        if np.abs(difference).max() <= floor:
            return 0.0
        return np.linalg.norm(difference) / np.linalg.norm(want[path])

    worst = max(map(error, want))
    assert_agrees(peer, f"worst {what} of {len(want)}", worst, 0, atol=rtol)
