"""Weights in checkpoints: finding them, reading them, putting them to other use.

One Orbax step holds `state` (arrays), `position` (how far, in which data), `config`
(what the run was) and `card` (what its images go through, see card.py).
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from beit_jax.config import upgraded

Tree = Any

COMMITTED = "commit_success.txt"  # is in the directory of every whole step

HANDLERS = {
    "state": ocp.PyTreeCheckpointHandler,
    "position": ocp.JsonCheckpointHandler,
    "config": ocp.JsonCheckpointHandler,
    "card": ocp.JsonCheckpointHandler,
}


def open_manager(
    directory: pathlib.Path, compress: bool = True, **options: Any
) -> ocp.CheckpointManager:
    """Orbax over the steps below `directory`; only committed ones count.

    Args:
      compress: what is saved; without, a save takes less memory.
    """
    given = {"state": {"use_compression": compress}}
    handlers = {name: make(**given.get(name, {})) for name, make in HANDLERS.items()}
    mode = ocp.options.AtomicityMode.COMMIT_FILE
    return ocp.CheckpointManager(
        directory,
        options=ocp.CheckpointManagerOptions(
            atomicity_options=ocp.options.AtomicityOptions(mode=mode), **options
        ),
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


def find_step(path: str | pathlib.Path) -> pathlib.Path:
    """The directory of one committed step.

    Args:
      path: that directory, its parent, or a work directory; the newest step is taken.

    Raises:
      ValueError: there is none.
    """
    path = pathlib.Path(path).expanduser().resolve()
    if path.name.isdigit() and (path / COMMITTED).exists():
        return path
    parent = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    steps = [p.parent for p in parent.glob(f"*/{COMMITTED}") if p.parent.name.isdigit()]
    if not steps:
        raise ValueError(
            f"no checkpoint in {path}; name a work directory, its checkpoints/ or one "
            "step in it (has the run that writes it finished a save?)"
        )
    return max(steps, key=lambda step: int(step.name))


def read_config(path: str | pathlib.Path) -> dict[str, Any]:
    """The config of the run that wrote a checkpoint, by today's keys; no arrays."""
    step = find_step(path)
    with _reader(step) as manager:
        want = ocp.args.Composite(config=ocp.args.JsonRestore())
        return upgraded(manager.restore(int(step.name), args=want)["config"])


def restore_params(path: str | pathlib.Path) -> Restored:
    """Parameters and mutable state, without the optimizer's."""
    step = find_step(path)
    with _reader(step) as manager:
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


def _reader(step: pathlib.Path) -> ocp.CheckpointManager:
    return open_manager(step.parent, read_only=True)
