"""Damaged steps of a run: one process looks for them, and sets them aside."""

import itertools
import pathlib
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from beit_jax.checkpoints import hashes, steps


def fault(step: pathlib.Path, arrays: bool = True) -> str:
    """What `hashes.fault` says; of many processes one reads, and all know."""
    wrong = hashes.fault(step, arrays) if jax.process_index() == 0 else ""
    bad = multihost_utils.broadcast_one_to_all(np.int32(bool(wrong)))
    return wrong or "damaged" * int(bad)


def known(step: pathlib.Path) -> list[str]:
    """What a user should know of a step without a fault that is about to be read."""
    if not hashes.have(step):
        return [steps.unknown(step)]
    if steps.is_committed(step):
        return []
    if jax.process_index() == 0:
        hashes.commit(step)
    return [f"{step} has lost its {steps.COMMITTED}, but all its files are right"]


def set_aside(damaged: Mapping[pathlib.Path, str]) -> list[str]:
    """Renames steps; a sentence on each. What is wrong with them may be nothing: ""."""
    notes = []
    for step, wrong in damaged.items():
        if wrong and jax.process_index() == 0:
            ends = itertools.chain([""], map("-{}".format, itertools.count(2)))
            names = (step.with_name(f"{step.name}.damaged{end}") for end in ends)
            place = next(name for name in names if not name.exists())
            step.rename(place)
            notes.append(
                f"checkpoint {step} cannot be read, kept as {place.name}: {wrong}"
            )
    multihost_utils.sync_global_devices("damaged steps are set aside")
    return notes
