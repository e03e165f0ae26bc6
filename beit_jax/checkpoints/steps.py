"""Weights in checkpoints: finding them, reading them, putting them to other use.

One Orbax step holds `state` (arrays), `position` (how far, in which data), `config`
(what the run was) and `card` (what its images go through, see card.py), and the hashes
of its files, which are compared before anything is read (see hashes.py).
"""

import asyncio
import contextlib
import functools
import json
import logging
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict
from orbax.checkpoint.path import atomicity

from beit_jax.checkpoints import hashes
from beit_jax.checkpoints.hashes import COMMITTED
from beit_jax.config import upgraded

Tree = Any

HANDLERS = {
    "state": ocp.PyTreeCheckpointHandler,
    "position": ocp.JsonCheckpointHandler,
    "config": ocp.JsonCheckpointHandler,
    "card": ocp.JsonCheckpointHandler,
}


class Folder(atomicity.CommitFileTemporaryPath):
    """Where Orbax writes a step, or one of its items; the step counts once hashed."""

    @classmethod
    async def validate(cls, temporary_path) -> None:
        """Orbax clears away for what this raises nothing."""
        if not _is_left_over(pathlib.Path(temporary_path)):
            raise atomicity.ValidationError(f"no save has left {temporary_path}")

    async def finalize(self) -> None:
        """In the thread that saves, when all items are written; by one process."""
        if not self._final_path.name.isdigit():
            return await super().finalize()
        # The last that Orbax writes: in here, or the hashes would come before it.
        metadata = self._checkpoint_metadata_store
        metadata.wait_until_finished()
        metadata.update(
            file_path=self._final_path / "_CHECKPOINT_METADATA",
            commit_timestamp_nsecs=time.time_ns(),
        )
        metadata.wait_until_finished()
        await asyncio.to_thread(hashes.write, pathlib.Path(self._final_path))


def _is_left_over(path: pathlib.Path) -> bool:
    """Whether a kill has left this of a save, or of a deletion."""
    if not path.name.isdigit() or not path.is_dir() or is_committed(path):
        return False
    return not hashes.have(path) or bool(hashes.fault(path))


def open_manager(
    directory: pathlib.Path, compress: bool = True, **options: Any
) -> ocp.CheckpointManager:
    """Orbax over the steps below `directory`; only committed ones count.

    Args:
      compress: what is saved; without, a save takes less memory.
    """
    given = {"state": {"use_compression": compress}}
    handlers = {name: make(**given.get(name, {})) for name, make in HANDLERS.items()}
    return ocp.CheckpointManager(
        directory,
        options=ocp.CheckpointManagerOptions(temporary_path_class=Folder, **options),
        item_handlers=handlers,
    )


def contents(
    state: Tree,
    position: Mapping[str, int],
    config: Mapping[str, Any],
    card: Mapping[str, Any],
) -> ocp.args.Composite:
    """What one step holds, as Orbax wants it for saving."""
    return ocp.args.Composite(
        state=ocp.args.PyTreeSave(state),
        position=ocp.args.JsonSave(dict(position)),
        config=ocp.args.JsonSave(dict(config)),
        card=ocp.args.JsonSave(dict(card)),
    )


class Restored(NamedTuple):
    """What another run's checkpoint gives; arrays on the host."""

    path: pathlib.Path  # of the step, or of another project's file or folder
    params: Tree  # the running average where the run kept one
    model_state: Tree
    config: dict[str, Any]
    position: dict[str, Any]  # in the data, and the tokenizer's step
    card: dict[str, Any]  # {} before there were any: see card.of_checkpoint
    step: int = 0  # of the optimizer; 0 if another project's


def all_steps(directory: pathlib.Path) -> list[pathlib.Path]:
    """The steps in a directory, the newest first, committed or not."""
    found = [p for p in directory.glob("*") if p.name.isdigit() and p.is_dir()]
    return sorted(found, key=lambda step: int(step.name), reverse=True)


def is_committed(step: pathlib.Path) -> bool:
    return (step / COMMITTED).exists()


def uncommitted(step: pathlib.Path) -> str:
    return (
        f"{step} is not committed, and does not count: its save was cut short, or goes "
        "on at this moment"
    )


def find_step(path: str | pathlib.Path) -> pathlib.Path:
    """The directory of one committed step; tells on stderr of newer ones that are not.

    Args:
      path: that directory, its parent, or a work directory; the newest step is taken.

    Raises:
      ValueError: there is none.
    """
    path = pathlib.Path(path).expanduser().resolve()
    if path.name.isdigit() and is_committed(path):
        return path
    if path.name.isdigit() and (path / "state").is_dir():
        raise ValueError(f"{uncommitted(path)}; name another one beside it")
    parent = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    doubts = []
    for step in all_steps(parent):
        if is_committed(step):
            for doubt in doubts:
                tell(f"note: {doubt}; {step.name} is taken")
            return step
        doubts.append(uncommitted(step))
    raise ValueError(
        f"no checkpoint in {path}; name a work directory, its checkpoints/ or one "
        "step in it (has the run that writes it finished a save?)"
        + "".join(f". {doubt}" for doubt in doubts)
    )


def read_config(path: str | pathlib.Path) -> dict[str, Any]:
    """The config of the run that wrote a checkpoint, by today's keys; no arrays."""
    step = find_step(path)
    with _verified(step, arrays=False) as manager, reading(step):
        want = ocp.args.Composite(config=ocp.args.JsonRestore())
        saved = manager.restore(int(step.name), args=want)
    return upgraded(saved["config"])


def restore_params(path: str | pathlib.Path) -> Restored:
    """Parameters and mutable state, without the optimizer's.

    Raises:
      ValueError: there is no checkpoint, or its files are not what was saved.
    """
    step = find_step(path)
    with _verified(step) as manager, reading(step):
        tree = manager.item_metadata(int(step.name))["state"].tree
        weights = "params" if tree["ema"] is None else "ema"
        item = {name: tree[name] for name in (weights, "model_state")}
        restore = ocp.args.PyTreeRestore(
            item=item,
            restore_args=jax.tree.map(
                lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item
            ),
            partial_restore=True,
        )
        texts = (HANDLERS.keys() - {"state"}) & {path.name for path in step.iterdir()}
        want = ocp.args.Composite(
            state=restore, **{name: ocp.args.JsonRestore() for name in texts}
        )
        saved = manager.restore(int(step.name), args=want)
    state = saved["state"]
    return Restored(
        step,
        state[weights],
        state["model_state"] or {},
        upgraded(saved["config"]),
        saved["position"],
        saved.get("card", {}),
        int(step.name),
    )


def save_params(
    workdir: str | pathlib.Path,
    params: Tree,
    model_state: Tree,
    config: ConfigDict,
    card: Mapping[str, Any],
) -> pathlib.Path:
    """Writes weights from elsewhere as step 0 of a run, for all that `find_step` finds.

    Args:
      card: see card.py.

    Returns:
      The path of the step.

    Raises:
      ValueError: there are checkpoints already.
    """
    directory = pathlib.Path(workdir).expanduser().resolve() / "checkpoints"
    state = {"step": np.int32(0), "params": params, "opt_state": {}, "ema": None}
    state |= {"model_state": model_state}
    with open_manager(directory, compress=False) as manager:
        if manager.all_steps():
            raise ValueError(f"{directory} has checkpoints; name an empty directory")
        manager.save(
            0,
            args=contents(state, {"step": 0}, json.loads(config.to_json()), card),
        )
    return directory / "0"


def reader(step: pathlib.Path) -> ocp.CheckpointManager:
    """Orbax over a step; what is wrong with those beside it does not matter."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of being read only, as it was told to be
    try:
        return open_manager(step.parent, read_only=True, lightweight_initialize=True)
    finally:
        log.setLevel(level)


class Unreadable(ValueError):
    """A step from before there were hashes: what reading it raised tells of damage."""


@contextlib.contextmanager
def reading(step: pathlib.Path) -> Iterator[None]:
    """Makes whatever Orbax raises of a damaged step one kind of error.

    Raises:
      Unreadable: the step has no hashes, by which the damage would have been seen.
    """
    try:
        yield
    except Exception as error:
        if hashes.have(step):
            raise
        line = (str(error) or repr(error)).splitlines()[0][:200]
        raise Unreadable(
            f"reading {step} ended in {type(error).__name__}: {line}"
        ) from error


def unknown(step: pathlib.Path) -> str:
    return (
        f"{step} was saved before there were hashes of its files: damage to it cannot "
        "be seen"
    )


@functools.cache
def tell(sentence: str) -> None:
    """On stderr, once, however often a run reads its frozen weights."""
    print(sentence, file=sys.stderr)


def _verified(step: pathlib.Path, arrays: bool = True) -> ocp.CheckpointManager:
    """The way to all that is read of a step but to go on with it, see keeper.py."""
    hashes.check(step, arrays)
    if not hashes.have(step):
        tell(f"note: {unknown(step)}")
    return reader(step)
