"""What must fit before a run begins: metrics, classes, settings."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from beit_jax.checkpoints import frozen as frozen_lib
from beit_jax.config import Plan
from beit_jax.data.sources import difference
from beit_jax.lookup import nearest
from beit_jax.run import boards, state
from beit_jax.run.evaluator import Evaluation
from beit_jax.tasks.base import Context


def check_metrics(config: ConfigDict, task, tests: Sequence[Evaluation]) -> None:
    """Raises ValueError when no evaluation measures what the run goes by."""
    stop = config.early_stop
    asked = {"checkpoint.best": config.checkpoint.best}
    asked["early_stop.metric"] = stop.metric
    names = metric_names(task, tests) if any(asked.values()) else []
    for key, metric in asked.items():
        if metric and metric not in names:
            there = ", ".join(names) or "none: give data.eval_source, or one in evals"
            raise ValueError(
                f"{key}={metric!r} is no metric of this run's evaluations"
                f"{nearest(metric, names)} (there are {there})"
            )
    if stop.mode not in ("max", "min"):
        raise ValueError(f"early_stop.mode={stop.mode!r} must be one of max, min")
    if any(test.measures(stop.metric) and not test.every for test in tests):
        raise ValueError(
            f"early_stop.metric={stop.metric!r} is measured at the end only; set "
            "eval.every_steps, or every_steps of that entry of evals"
        )


def check_start(config: ConfigDict) -> None:
    """Raises ValueError where `init_fresh` leaves out what no checkpoint gives, or
    there is no such writer."""
    boards.check(config.log.writers)
    if config.init_fresh and not config.init_from:
        raise ValueError(
            f"init_fresh={config.init_fresh!r} are parameters that init_from does not "
            "give, and init_from is empty; name a checkpoint there, or leave it out"
        )


def unused_settings(
    config: ConfigDict, plan: Plan, steps_per_epoch: float, spec: Mapping[str, Any]
) -> list[str]:
    """Sentences on what a config gives and the run does not follow."""
    notes = []
    if config.data.mask and "mask" not in spec:
        notes.append(f"data.mask is not used, {config.task.name} hides nothing")
    if config.steps is not None and config.epochs is not None:
        notes.append(f"epochs={config.epochs} is not used, steps={config.steps} is")
    asked = config.optim.warmup_steps
    if asked is None:
        asked = config.optim.warmup_epochs * steps_per_epoch
    if asked > plan.warmup:
        notes.append(f"warm-up cut to {plan.warmup} steps, half of the run")
    return notes


def metric_names(task, evaluations: Sequence[Evaluation]) -> list[str]:
    """What each of the evaluations measures, found without computing."""
    batch = {
        name: jax.ShapeDtypeStruct((1, *form.shape), form.dtype)
        for name, form in task.eval_spec.items()
    } | {"weight": jax.ShapeDtypeStruct((1,), jnp.float32)}
    boxed = nn.unbox(state.abstract_variables(task, batch))
    frozen = frozen_lib.shapes(task.frozen)
    step = jax.ShapeDtypeStruct((), jnp.int32)

    def sums(params, batch, model_state, frozen, step):
        ctx = Context(step, jax.random.key(0), model_state, frozen, params)
        return task.eval_step(params, batch, ctx)

    shapes = jax.eval_shape(
        sums, boxed["params"], batch, boxed["model_state"], frozen, step
    )
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    names = []
    for name, stream, _ in evaluations:
        scorer = task.scorer(stream.info)
        scorer.add(ones, np.zeros(1, np.int64))
        names += [f"{name}/{metric}" for metric in scorer.metrics()]
    return names


def check_classes(task, *streams) -> None:
    """Holds the classes of labelled streams against the task's.

    JAX would not notice: a label beyond the last class gives NaN or nothing.

    Raises:
      ValueError: another number of classes, or streams that name them differently, or
        other numbers than those that the task learns.
    """
    for stream in streams:
        if task.targets and stream.plan.source.targets != task.targets:
            raise ValueError(
                f"config.task.targets={task.targets}, but {stream.info.name} has "
                f"{stream.plan.source.targets}; give the task and a source of name "
                "'list' the same targets"
            )
    infos = [stream.info for stream in streams if task.classes]
    for info in infos:
        names = info.class_names
        if len(names) != task.classes:
            raise ValueError(
                f"config.task.classes={task.classes}, but {info.name} has "
                f"{len(names)}: {', '.join(names[:12])}{', …' if names[12:] else ''}"
            )
        if apart := difference(infos[0], info):
            raise ValueError(apart)
