"""What the loop knows of a task."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from beit_jax.checkpoints.frozen import Network
from beit_jax.tasks.scorers import Means, Scorer

Array = jax.Array
Tree = Any
Batch = dict[str, Array]
Sums = dict[str, tuple[Array, Array]]

# What the compiled training step augments by: an evaluation asks for none of it.
TRAIN_ONLY = ("jitter", "erase", "erase_seed", "mix")


class Context(NamedTuple):
    """What a loss may use besides parameters and batch."""

    step: Array  # optimizer steps done
    rng: Array  # already folded with step
    model_state: Tree  # mutable collections; {} for most
    frozen: Mapping[str, Tree]  # weights of the task's frozen networks: arguments
    # Averaged parameters, of a run that keeps them; in an evaluation the ones measured.
    ema: Tree | None = None


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

    train_spec: dict[str, jax.ShapeDtypeStruct]  # of one example, without batch axis
    eval_spec: dict[str, jax.ShapeDtypeStruct]  # the same, of an evaluation's
    headline: tuple[str, ...]  # the metrics that a person watches
    classes: int | None  # labels must be in [0, classes); None: it uses no labels
    targets: tuple[str, ...]  # names of the numbers that it learns of an image
    frozen: Mapping[str, Network]  # that the step uses and never trains
    network: nn.Module | None  # that it trains; none where it is but a frozen one
    encoder: nn.Module | None  # one of BACKBONES, where there is one
    pool: str | None  # what of its tokens a classifier sees
    outputs: tuple[str, ...]  # what `predict` can give of new images
    usual: Mapping[str, str]  # section of it -> its name, unless the config says one
    columns: Mapping[str, tuple[str, ...]]  # of pictures: what lies side by side

    def init(self, rng: Array, batch: Batch) -> Tree:
        """{"params": ..., "model_state": ...}, boxed with logical axes."""

    def adapt(self, params: Tree, model: Mapping[str, Any]) -> Tree:
        """Parameters of another run in this task's shape, before they are matched.

        `model` is that section of the other run's config.
        """

    def layers(self, params: Tree) -> Tree:
        """The number of each parameter's layer, for layer-wise decay and freezing.

        () int, or (L, 1, ...) for blocks stacked on axis 0: embeddings 0, block i is
        i + 1, the rest the largest. All 0 where there are no layers.
        """

    def weigh(self, counts: Callable[[], np.ndarray], examples: int) -> None:
        """Is told before training what the labels are, for a loss that asks.

        Args:
          counts: gives how many examples have each label, (C,); may take long.
          examples: how many there are.
        """

    def train_loss(self, params: Tree, batch: Batch, ctx: Context) -> tuple[Array, Aux]:
        """The loss of a batch, a scalar, and what to log of it."""

    def eval_step(self, params: Tree, batch: Batch, ctx: Context) -> dict[str, Any]:
        """Sums over one batch, each example weighed by batch["weight"].

        Or rows (B,) of numbers, where metrics are no ratio of sums; then "weight" is
        one of them.
        """

    def train_scorer(self) -> Scorer:
        """Makes metrics of the sums of training's steps."""

    def scorer(self, info: Any) -> Scorer:
        """Makes metrics, tables and charts of what `eval_step` gave.

        `info` is that of the source, which knows the names of its classes.
        """

    def eval_data(self, data: ConfigDict) -> ConfigDict:
        """The section `data` as evaluations and predictions are to follow it."""

    def pictures(self, params: Tree, batch: Batch, ctx: Context) -> dict[str, Array]:
        """Name -> (B, H, W, 3) uint8 pictures that show what was learnt; {} if none."""

    def predict(
        self, what: str, params: Tree, batch: Batch, ctx: Context
    ) -> dict[str, Array]:
        """One of `outputs` of images without labels; encoders.OUTPUTS need no task.

        "labels": log_probability (B, C) float32.
        "numbers": numbers (B, T) float32, in the order of `targets`.
        "tokens": tokens (B, h, w) int32, and perhaps what belongs to them.
        "reconstruction": picture (B, H, W, 3) uint8, columns side by side.
        """

    def warnings(self, metrics: Mapping[str, float], progress: float) -> dict[str, str]:
        """Name -> sentence on what looks wrong in a scorer's metrics.

        `progress` is the share of the run that is done, in 0..1.
        """


class Defaults:
    """The parts of a `Task` that most tasks leave empty."""

    classes = None
    targets: tuple[str, ...] = ()
    frozen: Mapping[str, Network] = {}
    network = None
    encoder = None
    pool = None
    outputs = ()
    usual: Mapping[str, str] = {}
    columns: Mapping[str, tuple[str, ...]] = {}

    @functools.cached_property  # so that a task may set its own
    def eval_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        return {k: form for k, form in self.train_spec.items() if k not in TRAIN_ONLY}

    def adapt(self, params: Tree, model: Mapping[str, Any]) -> Tree:
        return params

    def layers(self, params: Tree) -> Tree:
        return jax.tree.map(lambda _: np.array(0), params)

    def weigh(self, counts: Callable[[], np.ndarray], examples: int) -> None:
        pass

    def eval_data(self, data: ConfigDict) -> ConfigDict:
        return data

    def pictures(self, params: Tree, batch: Batch, ctx: Context) -> dict[str, Array]:
        return {}

    def warnings(self, metrics: Mapping[str, float], progress: float) -> dict[str, str]:
        return {}

    def train_scorer(self) -> Scorer:
        return Means()

    def scorer(self, info: Any) -> Scorer:
        return self.train_scorer()
