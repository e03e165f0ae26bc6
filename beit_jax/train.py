"""The one training loop: `python -m beit_jax.train --config C --workdir W`."""

import pathlib
import signal
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from beit_jax import card as card_lib
from beit_jax import (
    checkpoint,
    command,
    sharding,
    state,
    summary,
    tasks,
    weights,
)
from beit_jax import config as config_lib
from beit_jax.alarms import Alarms, of_settings
from beit_jax.config import Plan
from beit_jax.convert.source import restore, step_of
from beit_jax.data import pipeline
from beit_jax.evaluate import (
    Evaluator,
    check_classes,
    evaluation_stream,
    metric_names,
)
from beit_jax.metrics import Meter, Writer, history, read_last
from beit_jax.state import TrainState
from beit_jax.step import make_update
from beit_jax.tables import nearest
from beit_jax.tasks.base import means

Tree = Any


class Preempted(Exception):
    """The run was asked to stop and has saved; the same command goes on with it."""


def train(config: ConfigDict, workdir: str | pathlib.Path, quiet: bool = False) -> dict:
    """Trains until `config.steps` (or epochs), going on where `workdir` left off.

    Returns:
      The newest evaluation, name -> value; {} if the run has none.

    Raises:
      ValueError: a config, a checkpoint or data that cannot be used.
      Preempted: SIGTERM or SIGINT came; all steps done are saved.
      FloatingPointError: a loss was not finite; no checkpoint holds that step.
    """
    config_lib.check(config)
    workdir = pathlib.Path(workdir).expanduser().resolve()
    shard = (jax.process_index(), jax.process_count())
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch_size(config.data.batch_size, mesh, config.optim.accumulate)
    task = tasks.build(config)
    stream = pipeline.train_stream(config.data, task.example_spec, config.seed)
    tests = evaluation_stream(config, task)
    check_classes(task, stream, tests)
    steps_per_epoch = stream.info.num_examples / config.data.batch_size
    plan = Plan.from_config(config, steps_per_epoch)
    check_best(config, task, stream.spec, tests)
    card = card_lib.of(config, task, stream.info.class_names)
    position = {
        "examples": stream.info.num_examples,
        "digest_of_names_and_labels": stream.info.digest,
    }
    notes = unused_settings(config, plan, steps_per_epoch, stream.spec)
    doubts = []
    if task.frozen_from:
        position["frozen_step"] = step_of(task.frozen_from)
        notes.append(f"frozen weights from {task.frozen_from}")

    with (
        jax.set_mesh(mesh),
        checkpoint.Checkpointer(workdir, config, card) as run,
        Meter(config.task.name, plan.total, quiet or shard[0] > 0) as meter,
        StopSignal() as stop,
    ):
        spec = sharding.batch_spec(stream.spec, mesh)
        now, shardings, tx = state.create(task, config, plan, mesh, spec)
        now, told = run.restore(now, shardings, position)
        notes += told
        first = int(now.step)
        if first >= plan.total:
            meter.say(f"{workdir} is complete at step {first}")
            return read_last(workdir, "eval/")
        if first == 0 and config.init_from:
            now, report, doubts = warm_start(config, task, now)
            notes.append(report)
        frozen = jax.device_put(task.load_frozen(), sharding.replicated(mesh))
        update = make_update(task, tx, config, plan, shardings, mesh)
        introduce(meter, config, workdir, (update, now, frozen, spec), notes)
        stream.ledger.write_to(workdir / f"skipped_{shard[0]}.txt")
        if tests:
            tests.ledger.write_to(workdir / f"skipped_eval_{shard[0]}.txt")
        evaluator = Evaluator(task, mesh, config.seed)

        with Writer(workdir, first, enabled=shard[0] == 0) as writer:
            alarms = listen(task, config, plan, workdir)
            doubts += of_settings(config.optim, plan, now.params)
            warn(doubts, first, writer, meter)
            window, metrics = [], {}
            meter.speed(first, config.data.batch_size)
            for step, batch in enumerate(stream.batches(first, shard), first + 1):
                now, sums = update(now, frozen, sharding.put_batch(batch, mesh))
                window.append(sums)
                done = step == plan.total
                ending = done or stop.requested(step)
                measuring = tests and (done or due(step, plan.eval))
                best = measuring and config.checkpoint.best
                saving = ending or best or due(step, plan.save)
                if saving or due(step, plan.log):
                    values = digest(task, window, step)
                    values |= meter.speed(step, config.data.batch_size)
                    if stream.ledger.sentences:
                        values["train/skipped"] = len(stream.ledger.sentences)
                    window.clear()
                    tell(task, alarms, values, step, writer, meter)
                measured = None
                if measuring:
                    metrics, outputs = evaluator.measure(now, frozen, tests, shard)
                    measured = metrics
                    pictures = evaluator.paint(
                        now, frozen, tests, shard, config.eval.pictures, outputs
                    )
                    tell(task, alarms, metrics, step, writer, meter)
                    writer.pictures(step, pictures)
                if saving:
                    run.save(step, now, position | {"step": step}, measured)
                if ending:
                    break
    if not done:
        raise Preempted(f"stopped at step {step}; the same command goes on from there")
    return metrics


def due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def check_best(config: ConfigDict, task, spec, tests) -> None:
    """Raises ValueError when no evaluation will measure `checkpoint.best`."""
    best = config.checkpoint.best
    if best and not tests:
        raise ValueError(f"checkpoint.best={best!r} needs a data.eval_source")
    if best:
        names = [f"eval/{name}" for name in metric_names(task, spec)]
        if best not in names:
            raise ValueError(
                f"checkpoint.best={best!r} is no metric of this task"
                f"{nearest(best, names)} (it has {', '.join(names)})"
            )


def unused_settings(
    config: ConfigDict, plan: Plan, steps_per_epoch: float, spec: Mapping[str, Any]
) -> list[str]:
    """Sentences on what a config gives and the run does not follow."""
    notes = []
    if config.data.mask and "mask" not in spec:
        notes.append(f"data.mask is not used, {config.task.name} hides nothing")
    crop = config.data.augment.crop
    if crop != "random_resized":
        notes.append(f"data.augment.crop={crop!r} does not use scales and ratios")
    if config.steps is not None and config.epochs is not None:
        notes.append(f"epochs={config.epochs} is not used, steps={config.steps} is")
    asked = config.optim.warmup_steps
    if asked is None:
        asked = config.optim.warmup_epochs * steps_per_epoch
    if asked > plan.warmup:
        notes.append(f"warm-up cut to {plan.warmup} steps, half of the run")
    return notes


def listen(task, config: ConfigDict, plan: Plan, workdir: pathlib.Path) -> Alarms:
    """The alarms of a run, knowing what it has told until now."""
    alarms = Alarms(task, config.optim, plan)
    for step, values in history(workdir):
        alarms.hear(values, step)
    return alarms


def tell(task, alarms: Alarms, values, step: int, writer, meter) -> None:
    """Writes and shows metrics, and says aloud what is wrong in them."""
    writer.scalars(step, values)
    meter.report(step, values, task.headline)
    warn(alarms.hear(values, step), step, writer, meter)


def warn(sentences: Iterable[str], step: int, writer, meter) -> None:
    for sentence in sentences:
        writer.warning(step, sentence)
        meter.say(f"WARNING: {sentence}")


def warm_start(
    config: ConfigDict, task, fresh: TrainState
) -> tuple[TrainState, str, list[str]]:
    """A fresh state with the weights of `config.init_from`, a report, and warnings.

    Weights are the parameters and what else a model carries: the codes of a tokenizer.
    """
    other = restore(config.init_from)
    given = task.adapt(other.params, other.config["model"]) | other.model_state
    have, report = weights.merge(
        fresh.params | fresh.model_state, given, config.init_fresh, other.path
    )
    params = {name: have[name] for name in fresh.params}
    model_state = {name: have[name] for name in fresh.model_state}
    ema = None if fresh.ema is None else jax.tree.map(jnp.copy, params)
    now = fresh.replace(params=params, model_state=model_state, ema=ema)
    return now, report, card_lib.doubts(other, config.model)


def digest(task, window: list, step: int) -> dict[str, float]:
    """The metrics of the steps in `window`, `step` being the last of them."""
    window = jax.device_get(window)
    for at, sums in enumerate(window, step - len(window) + 1):
        # The loss tells of the weights before the step, the update of those after it.
        for name in ("loss", "update_norm"):
            value = means([{name: sums[name]}])[name]
            if not np.isfinite(value):
                raise FloatingPointError(
                    f"{name} is {value} at step {at}; no checkpoint holds that "
                    "step. Lower optim.lr, set optim.clip_norm, or use dtype=float32"
                )
    return {f"train/{name}": value for name, value in task.summarize(window).items()}


def introduce(meter: Meter, config: ConfigDict, workdir, call: tuple, notes) -> None:
    """Tells what is about to run, and keeps its config in the work directory."""
    update, now, frozen, spec = call
    images = config.data.batch_size
    step_flops = summary.count_flops(update, now, frozen, spec)
    meter.say(str(config))
    meter.say(
        summary.parameter_table(
            now.params, {"a training step, per image": step_flops / images}
        )
    )
    meter.say(f"{jax.device_count()} x {jax.devices()[0].device_kind}, {workdir}")
    for note in notes:
        meter.say(f"note: {note}")
    if jax.process_index() == 0:
        config_lib.save(config, workdir / "config.json")


class StopSignal:
    """Remembers SIGTERM and SIGINT, so that the loop can save first.

    A second signal acts as it always does. With several hosts JAX's own notice is
    used, by which all of them agree on the step.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __enter__(self) -> "StopSignal":
        self._asked = False
        self._before = {}
        main = threading.current_thread() is threading.main_thread()
        if main and jax.process_count() == 1:
            self._before = {s: signal.signal(s, self._note) for s in self.SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, *_) -> None:
        self._asked = True
        self.__exit__()

    def requested(self, step: int) -> bool:
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked


def main(options) -> None:
    try:
        train(options.config, options.workdir)
    except Preempted as stop:
        print(stop, file=sys.stderr)
        sys.exit(command.PREEMPTED)


if __name__ == "__main__":
    command.define_flags("where checkpoints and logs go", "a recipe, FILE[:ARG]")
    flags.mark_flag_as_required("config")
    command.run(main)
