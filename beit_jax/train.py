r"""The one training loop: `python -m beit_jax.train --config C --workdir W`.

What is run, the recipe says, and how long; the work directory gets the checkpoints,
config.json, metrics.jsonl, TensorBoard files and pictures. A run that was stopped goes
on by the same command.

    python -m beit_jax.train --config digits_tokenizer --workdir runs/tokenizer
    python -m beit_jax.train --config digits_finetune --workdir runs/scratch \
        --config.init_from= --config.optim.lr=5e-4
"""

from beit_jax import pages

if __name__ == "__main__":
    pages.ask()  # which starts the process anew, so before the long imports

import pathlib
import sys
from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from beit_jax import command, hosts, modules, sharding
from beit_jax import config as config_lib
from beit_jax.checkpoints import frozen as frozen_lib
from beit_jax.checkpoints.keeper import Checkpointer
from beit_jax.run import summary
from beit_jax.run.begin import begin
from beit_jax.run.clock import Clock
from beit_jax.run.early import EarlyStop
from beit_jax.run.evaluator import Evaluation, Evaluator
from beit_jax.run.lock import locked
from beit_jax.run.meter import Meter
from beit_jax.run.parts import assemble
from beit_jax.run.place import Place, placed
from beit_jax.run.reports import Reports, owed
from beit_jax.run.step import make_update
from beit_jax.run.stop import Preempted as Preempted  # what `train` raises
from beit_jax.run.stop import StopSignal
from beit_jax.run.whole import whole
from beit_jax.run.writer import Writer, read_last, times


def train(config: ConfigDict, workdir: str | pathlib.Path, quiet: bool = False) -> dict:
    """Trains until `config.steps` (or epochs), going on where `workdir` left off.

    Returns:
      The evaluations of the last step, name -> value; {} if the run has none.

    Raises:
      ValueError: a config, a checkpoint or data that cannot be used, or another run
        that uses `workdir`.
      Preempted: SIGTERM, SIGINT or SIGHUP came; all steps done are saved.
      FloatingPointError: a loss or gradients were not finite; no checkpoint holds
        that step.
    """
    config_lib.check(config)
    if refused := modules.recall(config.modules, "the config"):
        raise ValueError("; ".join(refused))
    modules.note(config.modules)
    hosts.agree(config.to_dict())
    with StopSignal(config.log.watchdog_minutes) as stop, placed(workdir) as place:
        return _train(config, place, quiet, stop)


def _train(config: ConfigDict, place: Place, quiet: bool, stop: StopSignal) -> dict:
    workdir = place.folder
    clock, shard = Clock(), (jax.process_index(), jax.process_count())
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch_size(config.data.batch_size, mesh, config.optim.accumulate)
    parts = assemble(config)
    task, stream, tests, plan, card, position, notes = parts

    with (
        locked(workdir, enabled=shard[0] == 0) as lock,
        jax.set_mesh(mesh),
        Checkpointer(workdir, config, card, whole) as run,
        Meter(config.task.name, plan.total, quiet or shard[0] > 0) as meter,
    ):
        notes += place.notes + lock.notes + pages.notes()
        state, shardings, optimizer, told, doubts = begin(config, parts, mesh, run)
        notes += told
        first = int(state.step)
        early = EarlyStop(config.early_stop, workdir, first, plan.total)
        over = first >= early.end
        late = owed(due(tests, first, early.end), workdir, first)
        if over and not late:
            for note in told:
                meter.say(f"note: {note}")
            meter.say(f"{place} is complete at step {first}{early.why}")
            return last(workdir, tests)
        if first:
            notes.append(f"goes on from step {first} of {plan.total}")
        frozen = jax.device_put(frozen_lib.load(task.frozen), sharding.replicated(mesh))
        update = make_update(task, optimizer, config, shardings, mesh)
        evaluator = Evaluator(task, mesh, config.seed)

        clock.go_on(times(workdir), first)  # before the writer drops some of them
        # After the restore: a run that is refused leaves no files, and disturbs none.
        place.take()
        told_to = config.log.writers, config.to_dict()
        with Writer(workdir, first, shard[0] == 0, *told_to) as writer:
            list_skipped(workdir, shard[0], stream, tests)
            spec = sharding.batch_spec(stream.spec, mesh)
            introduce((update, state, frozen, spec), config, notes, writer, meter)
            asked = evaluator, writer, meter, stop, early
            reports = Reports(config, parts, *asked, shard)
            reports.warn(doubts, first)
            meter.speed(first, config.data.batch_size)
            clock.lap("start")
            writer.scalars(first, clock.told())
            seen = reports.measure(state, frozen, late, first)
            reports.draw(state, frozen, seen, first)
            clock.lap("evaluation")
            if len(seen) < len(late):
                raise stopped(first)
            if over:
                return last(workdir, tests)
            for step, batch in enumerate(stream.batches(first, shard), first + 1):
                clock.lap("data")
                state, sums = update(state, frozen, sharding.put_batch(batch, mesh))
                clock.lap("step" if step > first + 1 else "compile")
                # Told at this step, not at the next save.
                place.check()
                lock.check()
                run.check()
                reports.add(sums)
                done = step == early.end
                ending = stop.requested() or done
                measuring = due(tests, step, early.end)
                # A step that checkpoint.best judges is saved, once it was measured.
                best = any(test.measures(config.checkpoint.best) for test in measuring)
                saving = ending or best or each(plan.save, step)
                # Before a save: a step that is not finite is never saved.
                if saving or each(plan.log, step):
                    reports.training(step)
                    clock.lap("step")
                seen = reports.measure(state, frozen, measuring, step)
                if len(seen) < len(measuring):  # the rest is owed by the next start
                    ending, saving, done, best = True, True, False, False
                    reports.training(step)
                clock.lap("evaluation")
                if saving:
                    at = position | {"step": step}
                    measured = merged(seen) if best else None
                    run.save(step, state, at, measured)
                    clock.lap("saving")
                # After the save: what cannot be drawn loses no step.
                reports.draw(state, frozen, seen, step)
                clock.lap("evaluation")
                if saving or each(plan.log, step):
                    writer.scalars(step, clock.told())
                if ending:
                    break
            run.wait()
            clock.lap("saving")
            writer.scalars(step, clock.told())
    if not done:
        raise stopped(step)
    return merged(seen)


def due(tests: Sequence[Evaluation], step: int, end: int) -> list[Evaluation]:
    """The evaluations to be done at a step of a run that ends at another."""
    return [test for test in tests if step >= end or each(test.every, step)]


def each(every: int, step: int) -> bool:
    return every > 0 and step % every == 0


def merged(seen) -> dict[str, float]:
    return {name: value for one in seen for name, value in one.metrics.items()}


def last(workdir: pathlib.Path, tests: Sequence[Evaluation]) -> dict:
    return read_last(workdir, *(f"{test.name}/" for test in tests))


def stopped(step: int) -> Preempted:
    return Preempted(f"stopped at step {step}; the same command goes on from there")


def list_skipped(workdir: pathlib.Path, host: int, stream, tests) -> None:
    """Has every file that cannot be used named in the work directory."""
    stream.ledger.write_to(workdir / f"skipped_{host}.txt")
    for test in tests:
        test.stream.ledger.write_to(workdir / f"skipped_{test.name}_{host}.txt")


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
        config_lib.save(whole(config), writer.workdir / "config.json")


def main(options) -> None:
    try:
        train(options.config, options.workdir)
    except Preempted as stop:
        StopSignal.ignore()
        print(stop, file=sys.stderr)
        sys.exit(command.PREEMPTED)


if __name__ == "__main__":
    command.run("train", main)
