"""The one training loop: `python -m beit_jax.train --config C --workdir W`."""

import pathlib
import sys
from collections.abc import Iterable

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from beit_jax import command, sharding, tasks
from beit_jax import config as config_lib
from beit_jax.checkpoints import frozen as frozen_lib
from beit_jax.checkpoints.keeper import Checkpointer
from beit_jax.config import Plan
from beit_jax.data import pipeline
from beit_jax.run import card as card_lib
from beit_jax.run import checks, summary
from beit_jax.run.alarms import Alarms, of_settings
from beit_jax.run.evaluator import Evaluator, evaluations
from beit_jax.run.lock import locked
from beit_jax.run.meter import Meter
from beit_jax.run.state import create
from beit_jax.run.step import make_update
from beit_jax.run.stop import Preempted as Preempted  # what `train` raises
from beit_jax.run.stop import StopSignal
from beit_jax.run.warm_start import warm_start
from beit_jax.run.writer import Writer, history, read_last
from beit_jax.tasks.scorers import Means


def train(config: ConfigDict, workdir: str | pathlib.Path, quiet: bool = False) -> dict:
    """Trains until `config.steps` (or epochs), going on where `workdir` left off.

    Returns:
      The evaluations of the last step, name -> value; {} if the run has none.

    Raises:
      ValueError: a config, a checkpoint or data that cannot be used, or another run
        that uses `workdir`.
      Preempted: SIGTERM or SIGINT came; all steps done are saved.
      FloatingPointError: a loss was not finite; no checkpoint holds that step.
    """
    config_lib.check(config)
    workdir = pathlib.Path(workdir).expanduser().resolve()
    shard = (jax.process_index(), jax.process_count())
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch_size(config.data.batch_size, mesh, config.optim.accumulate)
    task = tasks.build(config)
    stream = pipeline.train_stream(config.data, task.train_spec, config.seed)
    tests = evaluations(config, task)
    checks.check_classes(task, stream, *(test.stream for test in tests))
    steps_per_epoch = stream.info.num_examples / config.data.batch_size
    plan = Plan.from_config(config, steps_per_epoch)
    checks.check_best(config.checkpoint.best, task, tests)
    card = card_lib.of(config, task, stream.info.class_names)
    position = {
        "examples": stream.info.num_examples,
        "digest_of_names_and_labels": stream.info.digest,
        "frozen": frozen_lib.records(task.frozen),
    }
    notes = checks.unused_settings(config, plan, steps_per_epoch, stream.spec)
    notes += frozen_lib.places(task.frozen)
    doubts = []

    with (
        locked(workdir, enabled=shard[0] == 0) as told,
        jax.set_mesh(mesh),
        Checkpointer(workdir, config, card) as run,
        Meter(config.task.name, plan.total, quiet or shard[0] > 0) as meter,
        StopSignal() as stop,
    ):
        notes += told
        spec = sharding.batch_spec(stream.spec, mesh)
        state, shardings, optimizer = create(task, config, plan, mesh, spec)
        # Restored before the warm start: a run that goes on has weights of its own.
        state, told = run.restore(state, shardings, position)
        notes += told
        first = int(state.step)
        if first >= plan.total:
            for note in told:
                meter.say(f"note: {note}")
            meter.say(f"{workdir} is complete at step {first}")
            return read_last(workdir, *(f"{test.name}/" for test in tests))
        if first == 0 and config.init_from:
            state, report, doubts = warm_start(config, task, state)
            notes.append(report)
        frozen = jax.device_put(frozen_lib.load(task.frozen), sharding.replicated(mesh))
        update = make_update(task, optimizer, config, shardings, mesh)
        introduce(meter, config, workdir, (update, state, frozen, spec), notes)
        # After the restore: a run that is refused leaves no files.
        stream.ledger.write_to(workdir / f"skipped_{shard[0]}.txt")
        for test in tests:
            test.stream.ledger.write_to(workdir / f"skipped_{test.name}_{shard[0]}.txt")
        evaluator = Evaluator(task, mesh, config.seed)

        with Writer(workdir, first, enabled=shard[0] == 0) as writer:
            alarms = listen(task, config, plan, workdir)
            doubts += of_settings(plan, optimizer)
            warn(doubts, first, writer, meter)
            window = []
            meter.speed(first, config.data.batch_size)
            for step, batch in enumerate(stream.batches(first, shard), first + 1):
                state, sums = update(state, frozen, sharding.put_batch(batch, mesh))
                window.append(sums)
                done = step == plan.total
                ending = done or stop.requested(step)
                measuring = [test for test in tests if done or due(step, test.every)]
                # A step that checkpoint.best judges is saved, once it was measured.
                best = any(test.measures(config.checkpoint.best) for test in measuring)
                saving = ending or best or due(step, plan.save)
                if saving or due(step, plan.log):
                    # Before a save: a step whose loss is not finite is never saved.
                    values = digest(task, window, step)
                    values |= meter.speed(step, config.data.batch_size)
                    if stream.ledger.sentences:
                        values["train/skipped"] = len(stream.ledger.sentences)
                    window.clear()
                    tell(task, alarms, values, step, writer, meter)
                measured = {}
                for test in measuring:
                    found, scorer = evaluator.measure(state, frozen, test, shard)
                    pictures = evaluator.paint(
                        state, frozen, test, shard, config.eval.pictures, scorer
                    )
                    tell(task, alarms, found, step, writer, meter)
                    writer.pictures(step, pictures, test.prefix)
                    measured |= found
                if saving:
                    at = position | {"step": step}
                    run.save(step, state, at, measured if best else None)
                if ending:
                    break
    if not done:
        raise Preempted(f"stopped at step {step}; the same command goes on from there")
    return measured


def due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


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


def digest(task, window: list, step: int) -> dict[str, float]:
    """The metrics of the steps in `window`, `step` being the last of them."""
    window, scorer = jax.device_get(window), task.train_scorer()
    for at, sums in enumerate(window, step - len(window) + 1):
        # The loss tells of the weights before the step, the update of those after it.
        one = Means()
        one.add({name: sums[name] for name in ("loss", "update_norm")})
        for name, value in one.metrics().items():
            if not np.isfinite(value):
                raise FloatingPointError(
                    f"{name} is {value} at step {at}; no checkpoint holds that "
                    "step. Lower optim.lr, set optim.clip_norm, or use dtype=float32"
                )
        scorer.add(sums)
    return {f"train/{name}": value for name, value in scorer.metrics().items()}


def introduce(meter: Meter, config: ConfigDict, workdir, call: tuple, notes) -> None:
    """Tells what is about to run, and keeps its config in the work directory."""
    update, state, frozen, spec = call
    images = config.data.batch_size
    step_flops = summary.count_flops(update, state, frozen, spec)
    meter.say(str(config))
    meter.say(
        summary.parameter_table(
            state.params, {"a training step, per image": step_flops / images}
        )
    )
    meter.say(f"{jax.device_count()} x {jax.devices()[0].device_kind}, {workdir}")
    for note in notes:
        meter.say(f"note: {note}")
    if jax.process_index() == 0:
        config_lib.save(config, workdir / "config.json")


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
