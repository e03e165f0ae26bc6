"""Checkpoints: a run's own, and parameters taken from another run's.

One Orbax step holds `state` (arrays), `position` (how far, in which data) and `config`
(what the run was). A step counts only once Orbax's commit file is there.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict
from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation

from beit_jax.tables import nearest

Tree = Any

HANDLERS = {
    "state": ocp.PyTreeCheckpointHandler,
    "position": ocp.JsonCheckpointHandler,
    "config": ocp.JsonCheckpointHandler,
}
# A restart may change these: they do not change what a step computes.
FREE_TO_CHANGE = ("log", "eval", "checkpoint", "mesh", "data.eval_source")
# These change the schedule from the restart on: allowed, but said aloud.
LENGTH = ("steps", "epochs")
# What reading a damaged step may raise; tensorstore's errors are ValueErrors.
DAMAGED = (ValueError, KeyError, OSError, json.JSONDecodeError)


def flatten(tree: Tree) -> dict[str, Any]:
    """Path ("encoder/blocks/norm1/scale") -> leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in leaves}


class Checkpointer:
    """The checkpoints of one run, under `workdir/checkpoints`; saves in the background.

    Use as a context manager: leaving it waits for the last save.
    """

    def __init__(self, workdir: pathlib.Path, config: ConfigDict):
        """`config` is the whole run's; its section `checkpoint` says what is kept."""
        self.directory = workdir.resolve() / "checkpoints"
        self._config = json.loads(config.to_json())
        self._best = config.checkpoint.best
        keep, mode = config.checkpoint.keep, config.checkpoint.best_mode
        if keep < 1 or mode not in ("max", "min"):
            raise ValueError(
                f"checkpoint.keep={keep} must be at least 1, "
                f"checkpoint.best_mode={mode!r} one of max, min"
            )
        sign = 1 if mode == "max" else -1
        policies, options = [preservation.LatestN(keep)], {}
        if self._best:
            options["best_fn"] = lambda metrics: sign * metrics[self._best]
            policies.append(
                preservation.BestN(
                    get_metric_fn=options["best_fn"],
                    n=1,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self._manager = _manager(
            self.directory,
            cleanup_tmp_directories=True,
            preservation_policy=preservation.AnyPreservationPolicy(policies),
            **options,
        )

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *_) -> None:
        self._manager.close()

    def save(
        self,
        step: int,
        state: Tree,
        position: Mapping[str, int],
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Begins to save; a step that is already there is left as it is.

        Args:
          metrics: of an evaluation at this very step; decides which step is the best.

        Raises:
          ValueError: `metrics` lacks the one that `checkpoint.best` asks for.
        """
        if step in self._manager.all_steps():
            return
        if metrics is not None and self._best and self._best not in metrics:
            raise ValueError(
                f"checkpoint.best={self._best!r} is not among the metrics of an "
                f"evaluation: {', '.join(metrics)}"
            )
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(state),
                position=ocp.args.JsonSave(dict(position)),
                config=ocp.args.JsonSave(self._config),
            ),
            metrics=dict(metrics) if metrics and self._best else None,
            force=True,
        )

    def restore(
        self, state: Tree, shardings: Tree, position: Mapping[str, int]
    ) -> tuple[Tree, list[str]]:
        """The newest whole checkpoint in place of `state`, or `state` if there is none.

        Steps that cannot be read are set aside as `STEP.damaged` once an older one has
        been read in their place. When none can be read, nothing is moved and that is
        an error: a run never silently begins anew.

        Args:
          state: a fresh state; gives structure, shapes and dtypes.
          position: of the data as this run has it, without `step`.

        Returns:
          The state, and sentences about what a user should know.

        Raises:
          ValueError: the checkpoint is of another model, config or data.
        """
        notes, damaged = [], {}
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                saved = self._manager.restore(
                    step,
                    args=ocp.args.Composite(
                        position=ocp.args.JsonRestore(), config=ocp.args.JsonRestore()
                    ),
                )
                have = self._manager.item_metadata(step)["state"].tree
            except DAMAGED as error:
                damaged[step] = error
                continue
            notes += self._compare(step, saved, position)
            check_fit(have, state, f"checkpoint {self.directory / str(step)}")
            try:
                state = self._read(step, state, shardings)
            except DAMAGED as error:
                damaged[step] = error
                continue
            return state, [*notes, *map(self._set_aside, damaged.items())]
        if damaged:
            raise ValueError(
                f"no checkpoint in {self.directory} could be read: "
                + "; ".join(f"{step}: {_first_line(e)}" for step, e in damaged.items())
                + ". Repair them, or delete the directory to begin anew"
            )
        return state, notes

    def _read(self, step: int, state: Tree, shardings: Tree) -> Tree:
        want = jax.tree.map(
            lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
            state,
            shardings,
        )
        arguments = ocp.checkpoint_utils.construct_restore_args(want)
        restore = ocp.args.PyTreeRestore(item=want, restore_args=arguments)
        saved = self._manager.restore(step, args=ocp.args.Composite(state=restore))
        return saved["state"]

    def _set_aside(self, damaged: tuple[int, Exception]) -> str:
        step, error = damaged
        path = self.directory / str(step)
        if jax.process_index() == 0:
            path.rename(path.with_name(f"{step}.damaged"))
        self._manager.reload()
        return (
            f"checkpoint {path} cannot be read, kept as {step}.damaged: "
            f"{_first_line(error)}"
        )

    def _compare(self, step: int, saved, position: Mapping[str, int]) -> list[str]:
        """Refuses a restart that would not go on with the same run."""
        have = _flat_config(saved["config"]) | _prefixed("data: ", saved["position"])
        want = _flat_config(self._config) | _prefixed("data: ", position)
        have.pop("data: step", None)
        changed = [
            k for k in sorted(have.keys() | want.keys()) if have.get(k) != want.get(k)
        ]
        said = [
            f"{key}={want[key]} instead of {have[key]}: the schedule changes from here"
            for key in changed
            if key in LENGTH
        ]
        wrong = [
            f"{k}={have.get(k)!r}, this run has {want.get(k)!r}"
            for k in changed
            if k not in LENGTH
        ]
        if wrong:
            raise ValueError(
                f"checkpoint {self.directory / str(step)} was written with "
                + "; ".join(wrong)
                + ". To go on, give the same values; to start a new run from its "
                "weights, set init_from to it and use another workdir"
            )
        return said


def _first_line(error: Exception) -> str:
    return (str(error) or repr(error)).splitlines()[0][:200]


def _manager(directory: pathlib.Path, **options: Any) -> ocp.CheckpointManager:
    mode = ocp.options.AtomicityMode.COMMIT_FILE
    return ocp.CheckpointManager(
        directory,
        options=ocp.CheckpointManagerOptions(
            atomicity_options=ocp.options.AtomicityOptions(mode=mode), **options
        ),
        item_handlers={name: handler() for name, handler in HANDLERS.items()},
    )


def _flat_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in config.items():
        path = prefix + key
        if path in FREE_TO_CHANGE:
            continue
        flat |= (
            _flat_config(value, path + ".")
            if isinstance(value, dict)
            else {path: value}
        )
    return flat


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {prefix + key: value for key, value in values.items()}


def check_fit(have: Tree, want: Tree, where: str) -> None:
    """Raises ValueError with a table of parameter, have, want unless shapes agree."""
    have, want = flatten(have), flatten(want)
    rows = [
        f"  {path}: have {_form(have.get(path))}, want {_form(want.get(path))}"
        for path in sorted(have.keys() | want.keys())
        if _form(have.get(path)) != _form(want.get(path))
    ]
    if rows:
        raise ValueError(f"{where} does not fit this run:\n" + "\n".join(rows))


def _form(leaf: Any) -> str:
    return (
        "nothing" if leaf is None else f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"
    )


class Restored(NamedTuple):
    """What another run's checkpoint gives; arrays on the host."""

    path: pathlib.Path  # of the step
    params: Tree  # the running average where the run kept one
    model_state: Tree
    config: dict[str, Any]


def find_step(path: str | pathlib.Path) -> pathlib.Path:
    """The directory of one committed step.

    Args:
      path: that directory, its parent, or a work directory; the newest step is taken.

    Raises:
      ValueError: there is none.
    """
    path = pathlib.Path(path).expanduser().resolve()
    if path.name.isdigit() and (path / "commit_success.txt").exists():
        return path
    parent = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    steps = [
        p.parent for p in parent.glob("*/commit_success.txt") if p.parent.name.isdigit()
    ]
    if not steps:
        raise ValueError(
            f"no checkpoint in {path}; name a work directory, its checkpoints/ or one "
            "step in it (has the run that writes it finished a save?)"
        )
    return max(steps, key=lambda step: int(step.name))


def read_config(path: str | pathlib.Path) -> dict[str, Any]:
    """The config of the run that wrote a checkpoint; reads no arrays."""
    step = find_step(path)
    with _reader(step) as manager:
        want = ocp.args.Composite(config=ocp.args.JsonRestore())
        return manager.restore(int(step.name), args=want)["config"]


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
        want = ocp.args.Composite(state=restore, config=ocp.args.JsonRestore())
        saved = manager.restore(int(step.name), args=want)
    state = saved["state"]
    return Restored(step, state[weights], state["model_state"] or {}, saved["config"])


def _reader(step: pathlib.Path) -> ocp.CheckpointManager:
    return _manager(step.parent, read_only=True)


def _ends(path: str) -> list[int]:
    """Where the path "a/b/c" may be cut: after a, after b, after c."""
    return [i for i, letter in enumerate(path) if letter == "/"] + [len(path)]


def warm_start(
    fresh: Tree, taken: Tree, keep_fresh: tuple[str, ...], where: pathlib.Path
) -> tuple[Tree, str]:
    """`fresh` parameters with those of another run in their places.

    Args:
      keep_fresh: prefixes of paths that keep their fresh values.
      where: the checkpoint's path, for messages.

    Returns:
      The parameters, and a report of what was taken, is fresh, was left behind.

    Raises:
      ValueError: shapes differ (lists parameter, have, want), or nothing matches.
    """
    source, target = flatten(taken), flatten(fresh)
    kept = [
        p for p in target if any(p == k or p.startswith(k + "/") for k in keep_fresh)
    ]
    begins = {path[:at] for path in target for at in _ends(path)}
    for prefix in keep_fresh:
        if prefix not in begins:
            raise ValueError(
                f"init_fresh={prefix!r}: no parameter is or begins so"
                f"{nearest(prefix, begins)}"
            )
    both = [path for path in target if path in source and path not in kept]
    wrong = [
        f"  {path}: have {list(source[path].shape)}, want {list(target[path].shape)}"
        for path in both
        if source[path].shape != target[path].shape
    ]
    if wrong:
        raise ValueError(
            f"{where} does not fit:\n" + "\n".join(wrong) + "\nChange the model, or "
            "name these parameters (or what they begin with) in init_fresh"
        )
    if not both:
        raise ValueError(
            f"{where} has no parameter of this model, only {', '.join(sorted(source))}"
        )

    def pick(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name not in both:
            return leaf
        return jax.device_put(source[name].astype(leaf.dtype), leaf.sharding)

    rest = [path for path in target if path not in both]
    left = [path for path in source if path not in both]
    report = f"from {where}: took {len(both)} parameters"
    report += f"; fresh: {', '.join(rest)}" if rest else "; nothing is fresh"
    report += f"; left behind: {', '.join(left)}" if left else ""
    return jax.tree_util.tree_map_with_path(pick, fresh), report
