"""LoRA (Hu et al., arXiv:2106.09685): attention's kernels with a low-rank addition.

A kernel W of (D, ...) is used as W + alpha / rank * A B, with A random and B 0 at
first, so that a network begins as it was. A and B are parameters of their own, "lora";
a checkpoint that is read for use has them added up, see `added`.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from beit_jax.ranges import Length, Positive

Tree = Any

NAME = "lora"  # of the parameters, and of the setting in a task
# Kernel of blocks/attn -> its axes, so many of which are rows; l the block.
KERNELS = {"qkv": ("ldtak", 1), "proj": ("lakd", 2)}


class Lora:
    """What a task's setting `lora` says.

    Args:
      rank: of the addition.
      alpha: its factor is alpha / rank.
    """

    def __init__(self, rank: Length, alpha: Positive = 16.0):
        self.rank, self.factor = rank, alpha / rank

    def init(self, rng: jax.Array, encoder: Tree) -> Tree:
        """Parameters for an encoder's unboxed ones or their shapes."""
        attention, made = encoder["blocks"]["attn"], {}
        for name, (_, rows) in KERNELS.items():
            depth, *sides = _kernel(attention, name).shape
            rng, own = jax.random.split(rng)
            shape = depth, *sides[:rows], self.rank
            deviation = 1 / math.sqrt(math.prod(sides[:rows]))
            made[name] = {
                "a": deviation * jax.random.normal(own, shape),
                "b": jnp.zeros((depth, self.rank, *sides[rows:])),
            }
        return made

    def added(self, params: Tree) -> Tree:
        """A task's parameters without "lora", which is in the kernels."""
        params = dict(params)
        lora, encoder = params.pop(NAME), dict(params["encoder"])
        blocks = encoder["blocks"] = dict(encoder["blocks"])
        attention = blocks["attn"] = dict(blocks["attn"])
        for name, (axes, rows) in KERNELS.items():
            low = lora[name]
            left, right = f"{axes[: rows + 1]}z", f"lz{axes[rows + 1 :]}"
            more = self.factor * jnp.einsum(
                f"{left},{right}->{axes}", low["a"], low["b"], precision="highest"
            )
            kernel = _kernel(attention, name) + more
            attention[name] = (
                kernel if name == "qkv" else attention[name] | {"kernel": kernel}
            )
        return params | {"encoder": encoder}


def _kernel(attention: Tree, name: str):
    return attention[name] if name == "qkv" else attention[name]["kernel"]


def added(params: Tree, config: Mapping[str, Any]) -> tuple[Tree, Mapping[str, Any]]:
    """A checkpoint's parameters and config as those of a run without LoRA."""
    if NAME not in params:
        return params, config
    task = dict(config["task"])
    lora = Lora(**task.pop(NAME))
    return jax.device_get(lora.added(params)), {**config, "task": task}
