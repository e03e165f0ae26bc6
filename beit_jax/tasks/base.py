"""What the loop knows of a task."""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

Array = jax.Array
Tree = Any
Batch = dict[str, Array]
Sums = dict[str, tuple[Array, Array]]


class Context(NamedTuple):
    """What a loss may use besides parameters and batch."""

    step: Array  # optimizer steps done
    rng: Array  # already folded with step
    model_state: Tree  # mutable collections; {} for most
    frozen: Tree  # tokenizer weights: an argument of the step, never trained or saved


class Aux(NamedTuple):
    metrics: Sums  # name -> (sum, weight): their ratio is exact under any sharding
    model_state: Tree


class Task(Protocol):
    """A kind of run; holds modules, no arrays.

    The gradient of `train_loss` must be that of metrics["loss"], the ratio of a sum
    and a weight: accumulation weighs its parts by that weight, so that k parts of b
    examples give the gradient of one batch of k * b. (Not so model_state, which moves
    from part to part, and drop path, which each part draws anew.)
    """

    example_spec: dict[str, jax.ShapeDtypeStruct]  # of one example, without batch axis
    headline: tuple[str, ...]  # the metrics that a person watches
    classes: int | None  # labels must be in [0, classes); None: it uses no labels
    frozen_from: pathlib.Path | None  # the checkpoint step of the frozen weights

    def init(self, rng: Array, batch: Batch) -> Tree:
        """{"params": ..., "model_state": ...}, boxed with logical axes."""

    def load_frozen(self) -> Tree:
        """Weights that the step needs but never trains; {} for most."""

    def adapt(self, params: Tree, model: Mapping[str, Any]) -> Tree:
        """Parameters of another run in this task's shape, before they are matched.

        `model` is that section of the other run's config.
        """

    def train_loss(self, params: Tree, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """The loss of a batch, a scalar, and what to log of it."""

    def eval_step(self, params: Tree, batch: Batch, ctx: Context) -> Sums:
        """Sums over one batch, each example weighed by batch["weight"]."""

    def summarize(self, outputs: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """Metrics from the sums of many batches, of an evaluation or of training."""

    def pictures(self, params: Tree, batch: Batch, ctx: Context) -> dict[str, Array]:
        """Name -> (B, H, W, 3) uint8 pictures that show what was learnt; {} if none."""

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """Sentences on what looks wrong in `summarize`d metrics; [] if nothing does."""


class Defaults:
    """The parts of a `Task` that most tasks leave empty."""

    classes = None
    frozen_from = None

    def load_frozen(self) -> Tree:
        return {}

    def adapt(self, params: Tree, model: Mapping[str, Any]) -> Tree:
        return params

    def pictures(self, params: Tree, batch: Batch, ctx: Context) -> dict[str, Array]:
        return {}

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        return []

    def summarize(self, outputs: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        return {name: float(value) for name, value in means(outputs).items()}


def means(outputs: Iterable[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Summed sums over summed weights, in float64; NaN where nothing counted."""
    totals: dict[str, list] = {}
    for sums in outputs:
        for name, (value, weight) in sums.items():
            total = totals.setdefault(name, [0.0, 0.0])
            total[0] = total[0] + np.asarray(value, np.float64)
            total[1] = total[1] + np.asarray(weight, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            name: np.divide(value, weight) for name, (value, weight) in totals.items()
        }
