"""The one training loop: `python -m beit_jax.train --config C --workdir W`."""

import pathlib
import sys
from collections.abc import Iterable

import jax
from absl import flags
from ml_collections import ConfigDict

from beit_jax import command, hosts, sharding
from beit_jax import config as config_lib
from beit_jax.checkpoints import frozen as frozen_lib
from beit_jax.checkpoints.keeper import Checkpointer
from beit_jax.config import Plan
from beit_jax.run import summary
from beit_jax.run.alarms import Alarms, of_settings
from beit_jax.run.evaluator import Evaluation, Evaluator
from beit_jax.run.finite import Finite
from beit_jax.run.meter import Meter
from beit_jax.run.parts import assemble
from beit_jax.run.state import create
from beit_jax.run.step import make_update
from beit_jax.run.stop import Preempted as Preempted  # what `train` raises
from beit_jax.run.stop import StopSignal
from beit_jax.run.warm_start import warm_start
from beit_jax.run.writer import Writer, history, read_last


def train(config: ConfigDict, workdir: str | pathlib.Path, quiet: bool = False) -> dict:
    """Trains until `config.steps` (or epochs), going on where `workdir` left off.

    Returns:
      The evaluations of the last step, name -> value; {} if the run has none.

    Raises:
      ValueError: a config, a checkpoint or data that cannot be used.
      Preempted: SIGTERM, SIGINT or SIGHUP came; all steps done are saved.
      FloatingPointError: a loss or gradients were not finite; no checkpoint holds
        that step.
    """
    config_lib.check(config)
    hosts.agree(config.to_dict())
    with StopSignal(config.log.watchdog_minutes) as stop:
        return _train(config, workdir, quiet, stop)


def _train(config: ConfigDict, workdir, quiet: bool, stop: StopSignal) -> dict:
    workdir = pathlib.Path(workdir).expanduser().resolve()
    shard = (jax.process_index(), jax.process_count())
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch_size(config.data.batch_size, mesh, config.optim.accumulate)
    task, stream, tests, plan, card, position, notes = assemble(config)

    with (
        jax.set_mesh(mesh),
        Checkpointer(workdir, config, card) as run,
        Meter(config.task.name, plan.total, quiet or shard[0] > 0) as meter,
    ):
        spec = sharding.batch_spec(stream.spec, mesh)
        state, shardings, optimizer = create(task, config, plan, mesh, spec)
        doubts = of_settings(plan, optimizer)
        # Restored before the warm start: a run that goes on has weights of its own.
        state, told = run.restore(state, shardings, position)
        notes += told
        first = int(state.step)
        owed = owing(tests, plan, workdir, first)
        if first >= plan.total and not owed:
            meter.say(f"{workdir} is complete at step {first}")
            return read_last(workdir, *(f"{test.name}/" for test in tests))
        if first == 0 and config.init_from:
            state, report, more = warm_start(config, task, state)
            notes.append(report)
            doubts = more + doubts
        frozen = jax.device_put(frozen_lib.load(task.frozen), sharding.replicated(mesh))
        update = make_update(task, optimizer, config, shardings, mesh)
        evaluator = Evaluator(task, mesh, config.seed)

        # After the restore: a run that is refused leaves no files.
        with Writer(workdir, first, enabled=shard[0] == 0) as writer:
            stream.ledger.write_to(workdir / f"skipped_{shard[0]}.txt")
            for test in tests:
                file = workdir / f"skipped_{test.name}_{shard[0]}.txt"
                test.stream.ledger.write_to(file)
            introduce((update, state, frozen, spec), config, notes, writer, meter)
            alarms = listen(task, config, plan, workdir)
            warn(doubts, first, writer, meter)
            window, finite = [], Finite(config.optim.max_left_out, stream, workdir)

            def report(step: int) -> None:
                """Tells of the steps in the window; of one not finite by an error."""
                values = digest(task, window, step, finite)
                values |= meter.speed(step, config.data.batch_size)
                if skipped := len(hosts.union(stream.ledger.sentences)):
                    stream.ledger.check(skipped)
                    values["train/skipped"] = skipped
                window.clear()
                tell(task, alarms, values, step, writer, meter)

            def measure(step: int, tests: list[Evaluation]) -> tuple[dict, list]:
                """Metrics and scorers of `tests`; of fewer if asked to stop."""
                measured, scorers = {}, []
                for test in tests:
                    seen = evaluator.measure(state, frozen, test, shard, stop.requested)
                    if seen is None:
                        break
                    tell(task, alarms, seen[0], step, writer, meter)
                    measured |= seen[0]
                    scorers.append(seen[1])
                return measured, scorers

            def draw(step: int, tests: list[Evaluation], scorers: list) -> None:
                for test, scorer in zip(tests, scorers, strict=False):
                    at = (state, frozen, test, shard, config.eval.pictures, scorer)
                    writer.pictures(step, evaluator.paint(*at), test.prefix)

            meter.speed(first, config.data.batch_size)
            if owed:
                measured, scorers = measure(first, owed)
                if len(scorers) < len(owed):
                    raise stopped(first)
                draw(first, owed, scorers)
            if first >= plan.total:
                return read_last(workdir, *(f"{test.name}/" for test in tests))
            for step, batch in enumerate(stream.batches(first, shard), first + 1):
                state, sums = update(state, frozen, sharding.put_batch(batch, mesh))
                window.append(sums)
                done = step == plan.total
                ending = stop.requested() or done
                measuring = [test for test in tests if done or due(step, test.every)]
                # A step that checkpoint.best judges is saved, once it was measured.
                best = any(test.measures(config.checkpoint.best) for test in measuring)
                saving = ending or best or due(step, plan.save)
                # Before a save: a step whose loss is not finite is never saved.
                if saving or due(step, plan.log):
                    report(step)
                measured, scorers = measure(step, measuring)
                if len(scorers) < len(measuring):  # the rest is owed by the next start
                    ending, saving, done, best = True, True, False, False
                    if window:
                        report(step)
                if saving:
                    at = position | {"step": step}
                    run.save(step, state, at, measured if best else None)
                # After the save: what cannot be drawn loses no step.
                draw(step, measuring, scorers)
                if ending:
                    break
    if not done:
        raise stopped(step)
    return measured


def stopped(step: int) -> Preempted:
    return Preempted(f"stopped at step {step}; the same command goes on from there")


def owing(
    tests: list[Evaluation], plan: Plan, workdir: pathlib.Path, step: int
) -> list[Evaluation]:
    """The evaluations at a restored step that a signal has cut short."""
    told = [values for at, values in history(workdir) if at == step > 0]
    names = {name.split("/")[0] for values in told for name in values}
    due_now = [test for test in tests if step == plan.total or due(step, test.every)]
    return [test for test in due_now if told and test.name not in names]


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


def digest(task, window: list, step: int, finite: Finite) -> dict[str, float]:
    """The metrics of the steps in `window`, `step` being the last of them.

    Raises:
      FloatingPointError: steps that were not finite, more than may be left out.
    """
    window, scorer = jax.device_get(window), task.train_scorer()
    taken = [
        sums
        for at, sums in enumerate(window, step - len(window) + 1)
        if finite(sums, at)
    ]
    for sums in taken:
        scorer.add(sums)
    values = scorer.metrics() if taken else {}
    if len(taken) < len(window):
        values["steps_left_out"] = len(window) - len(taken)
    return {f"train/{name}": value for name, value in values.items()}


def introduce(call: tuple, config: ConfigDict, notes, writer, meter: Meter) -> None:
    """Tells what is about to run, and keeps that and its config with the run."""
    update, state, frozen, spec = call
    images = config.data.batch_size
    step_flops = summary.count_flops(update, state, frozen, spec)
    flops = {"a training step, per image": step_flops / images}
    meter.say(str(config))
    for text in (
        summary.parameter_table(state.params, flops),
        f"{jax.device_count()} x {jax.devices()[0].device_kind}, {writer.workdir}",
        *(f"note: {note}" for note in notes),
    ):
        meter.say(text)
        writer.note(text)
    if jax.process_index() == 0:
        config_lib.save(config, writer.workdir / "config.json")


def main(options) -> None:
    try:
        train(options.config, options.workdir)
    except Preempted as stop:
        StopSignal.ignore()
        print(stop, file=sys.stderr)
        sys.exit(command.PREEMPTED)


if __name__ == "__main__":
    command.define_flags("where checkpoints and logs go", "a recipe, FILE[:ARG]")
    flags.mark_flag_as_required("config")
    command.run(main)
