"""`python -m beit_jax.train`, disturbed: what the campaigns start.

DISTURB=WHAT@MOMENT in the environment says how: kill, raise, hang (the main thread
sleeps), freeze (the whole process), or a signal, SIGTERM say, or SIGTERM,SIGTERM for
two 20 ms apart; when the run is assembled ("start"), in its first "compile", before
step "7", in the first or last evaluation ("evaluation", "final"), in a "save". With
@PROCESS behind it one of several does so. EXAMPLES=FILE gets a line for every step that
was done: its number, the process, the indices of the examples.
"""

import json
import os
import signal
import sys
import threading
import time

import jax

from beit_jax import command, train
from beit_jax.checkpoints.keeper import Checkpointer
from beit_jax.data.pipeline import EvalStream, Stream
from beit_jax.run.step import Update


def act(what: str) -> None:
    print("disturbed:", what, file=sys.stderr, flush=True)
    if what == "raise":
        raise RuntimeError("disturbed")
    if what == "hang":
        time.sleep(1e6)
    names = {"kill": "SIGKILL", "freeze": "SIGSTOP"}.get(what, what).split(",")
    for again in range(1, len(names)):
        later = (os.getpid(), signal.Signals[names[again]])
        threading.Timer(0.02 * again, os.kill, later).start()
    os.kill(os.getpid(), signal.Signals[names[0]])


class Disturbance:
    """Acts once, at its moment, and only in its process."""

    def __init__(self, text: str):
        self._what, self._moment, self._process = (*text.split("@"), "", "", "")[:3]

    def __call__(self, moment: str) -> None:
        here = self._process in ("", str(jax.process_index()))
        if moment == self._moment and here:
            self._moment = ""
            act(self._what)

    def soon(self, moment: str) -> None:
        threading.Timer(0.05, self, [moment]).start()


def prepare(disturb: Disturbance, examples: str) -> None:
    """Lets the loop's parts call `disturb`; they do the same work as ever."""
    assemble, batches, measured = train.assemble, Stream.batches, EvalStream.batches
    update, save = Update.__call__, Checkpointer.save
    evaluations, using = [], []

    def used(self, first_step=0, shard=(0, 1)):
        for step, batch in enumerate(batches(self, first_step, shard), first_step + 1):
            disturb(str(step))
            using[:] = step, shard[0], batch["index"].tolist()
            yield batch

    def evaluated(self, shard=(0, 1)):
        evaluations.append(self)
        for number, batch in enumerate(measured(self, shard)):
            if number == 1:
                disturb("evaluation")
                if len(evaluations) > 2:  # of the first one also pictures are made
                    disturb("final")
            yield batch

    def assembled(config):
        disturb("start")
        return assemble(config)

    def updated(*arguments):
        disturb.soon("compile")
        made = update(*arguments)
        if examples:
            with open(examples, "a") as file:
                print(json.dumps(using), file=file)
        return made

    def saved(*arguments):
        save(*arguments)
        disturb("save")

    train.assemble, Stream.batches, EvalStream.batches = assembled, used, evaluated
    Update.__call__, Checkpointer.save = updated, saved


if __name__ == "__main__":
    prepare(Disturbance(os.environ.get("DISTURB", "")), os.environ.get("EXAMPLES", ""))
    command.run("train", train.main)
