"""What a config names, built and held against each other, before there is a state."""

from typing import Any, NamedTuple

from ml_collections import ConfigDict

from beit_jax import tasks
from beit_jax.checkpoints import frozen as frozen_lib
from beit_jax.config import Plan
from beit_jax.data import pipeline
from beit_jax.run import card as card_lib
from beit_jax.run import checks
from beit_jax.run.evaluator import Evaluation, evaluations
from beit_jax.tasks.base import Task


class Parts(NamedTuple):
    """All that a run needs besides its state."""

    task: Task
    stream: pipeline.Stream
    tests: list[Evaluation]
    plan: Plan
    card: dict[str, Any]
    position: dict[str, Any]  # in the data, but for the step
    notes: list[str]


def assemble(config: ConfigDict) -> Parts:
    """Raises ValueError for what cannot be had, or does not go together."""
    checks.check_start(config)
    task = tasks.build(config)
    stream = pipeline.train_stream(config.data, task.train_spec, config.seed)
    tests = evaluations(config, task)
    checks.check_classes(task, stream, *(test.stream for test in tests))
    task.weigh(stream.plan.source.label_counts, stream.info.num_examples)
    steps_per_epoch = stream.info.num_examples / config.data.batch_size
    plan = Plan.from_config(config, steps_per_epoch)
    checks.check_metrics(config, task, tests)
    position = {
        "examples": stream.info.num_examples,
        "digest_of_names_and_labels": stream.info.digest,
        "frozen": frozen_lib.records(task.frozen),
    }
    card = card_lib.of(config, task, stream.info.class_names)
    notes = checks.unused_settings(config, plan, steps_per_epoch, stream.spec)
    notes += frozen_lib.places(task.frozen)
    for one in (stream, *(test.stream for test in tests)):
        notes += one.notes
    return Parts(task, stream, tests, plan, card, position, notes)
