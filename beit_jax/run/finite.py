"""Steps whose loss or gradients are not finite: never taken, counted, and told."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from beit_jax.run.state import TrainState
from beit_jax.text import UTF8

Tree = Any

WATCHED = ("loss", "grad_norm", "update_norm")
FAILED = "failed_step_{:07d}.json"  # in the work directory


def move_if(
    finite: jax.Array, tx: optax.GradientTransformation, grads: Tree, state: TrainState
) -> tuple[Tree, Tree, jax.Array]:
    """Parameters and the optimizer's state after a step, and the norm of its update.

    Where `finite` () says no, they are those before, and the norm is not a number. But
    schedules go on: the rate of the next step is that of its number.
    """

    def move(params, opt_state):
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return params, opt_state, optax.global_norm(updates)

    def rest(params, opt_state):
        counted = jax.tree.map(
            lambda leaf: _counted(leaf) if _counts(leaf) else leaf,
            opt_state,
            is_leaf=_counts,
        )
        return params, counted, jnp.array(jnp.nan, jnp.float32)

    # A condition, not a choice of each number: that would hold every moment twice.
    return jax.lax.cond(finite, move, rest, state.params, state.opt_state)


def _counts(leaf: Any) -> bool:
    """Whether it is the state of a schedule, which is a count of steps and no more."""
    return getattr(leaf, "_fields", ()) == ("count",)


def _counted(leaf: Any) -> Any:
    return jax.tree.map(optax.safe_increment, leaf)


class Finite:
    """Looks through the steps of each report, and ends a run with too many bad ones.

    Args:
      allowed: steps in a row that may be left out; 0: none.
      stream: the run's, to name the examples of a step.
      workdir: where FAILED goes, which `beit_jax.replay` reads.
    """

    def __init__(self, allowed: int, stream, workdir: pathlib.Path):
        self._allowed, self._stream, self._workdir = allowed, stream, workdir
        self._in_a_row = 0

    def __call__(self, sums: Mapping[str, tuple], step: int) -> bool:
        """Whether the step was taken.

        Raises:
          FloatingPointError: it was not, and is one too many; or its update was not
            finite, which its gradients did not tell.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            values = {name: float(np.divide(*sums[name])) for name in WATCHED}
        bad = [name for name, value in values.items() if not np.isfinite(value)]
        self._in_a_row = self._in_a_row + 1 if bad else 0
        if not bad:
            return True
        if self._in_a_row <= self._allowed and bad != ["update_norm"]:
            return False
        raise FloatingPointError(self._failed(step, bad[0], values))

    def _failed(self, step: int, name: str, values: Mapping[str, float]) -> str:
        """Writes down which step it was, and says what to do."""
        index = self._stream.index(step - 1)
        describe = self._stream.plan.source.describe
        bundle = {
            "step": step,
            **{name: str(value) for name, value in values.items()},
            "seed": self._stream.plan.seed,
            "examples": [[int(i), describe(int(i))] for i in index],
        }
        if jax.process_index() == 0:
            file = self._workdir / FAILED.format(step)
            file.write_text(
                json.dumps(bundle, indent=1, ensure_ascii=False) + "\n", **UTF8
            )
        row = f", the {self._in_a_row}th in a row" if self._allowed else ""
        return (
            f"{name} is {values[name]} at step {step}{row}; no checkpoint holds that "
            f"step. See by python -m beit_jax.replay --workdir {self._workdir} what in "
            "it is not finite. Lower optim.lr, set optim.clip_norm, use dtype=float32, "
            "or let such steps be left out by optim.max_left_out"
        )
