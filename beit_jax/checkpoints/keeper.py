"""A run's own checkpoints: saving, and going on from the newest that is whole."""

import functools
import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict
from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation

from beit_jax.checkpoints import damage, frozen, hashes, steps
from beit_jax.checkpoints.names import check_fit
from beit_jax.config import from_dict

Tree = Any

# A restart may change these: they do not change what a step computes.
FREE_TO_CHANGE = (
    "log",
    "eval",
    "evals",
    "early_stop",
    "checkpoint",
    "mesh",
    "modules",  # a package may have got another name
    "data.eval_source",
    "data.eval_cache",
    "data.decoded_cache_gib",
    "data.on_bad",  # after a run has died of a file
    "data.max_bad",
    "optim.max_left_out",  # and of a number that was not finite
)
# These change the schedule from the restart on: allowed, but said aloud.
LENGTH = ("steps", "epochs")


class Checkpointer:
    """The checkpoints of one run, under `workdir/checkpoints`; saves in the background.

    Use as a context manager: leaving it waits for the last save. Makes no folder
    before the first save.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        config: ConfigDict,
        card: Mapping[str, Any],
        whole: Callable[[ConfigDict], ConfigDict] = lambda config: config,
    ):
        """`config` is the whole run's; its section `checkpoint` says what is kept.

        `card` goes into every checkpoint, see card.py. `whole` writes down what a
        config leaves to defaults: of this one, before it is saved, and of one that an
        earlier version saved without.
        """
        self.directory = workdir.resolve() / "checkpoints"
        self._whole, self._card = whole, card
        self._config = json.loads(whole(config).to_json())
        self._best = config.checkpoint.best
        keep, mode = config.checkpoint.keep, config.checkpoint.best_mode
        if keep < 1 or mode not in ("max", "min"):
            raise ValueError(
                f"checkpoint.keep={keep} must be at least 1, "
                f"checkpoint.best_mode={mode!r} one of max, min"
            )
        if self.directory.exists() and not self.directory.is_dir():
            raise ValueError(f"{self.directory} must be a folder; move the file away")
        sign = 1 if mode == "max" else -1
        policies, self._options = [preservation.LatestN(keep)], {}
        if self._best:
            self._options["best_fn"] = lambda metrics: sign * metrics[self._best]
            policies.append(
                preservation.BestN(
                    get_metric_fn=self._options["best_fn"],
                    n=1,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self._options["preservation_policy"] = preservation.AnyPreservationPolicy(
            policies
        )
        self._saving = False

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        """Clears away what was never finished."""
        return steps.open_manager(
            self.directory,
            cleanup_tmp_directories=True,
            lightweight_initialize=not self._best,  # who needs no metrics reads none
            **self._options,
        )

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        # Where one process fails the others never come to finish a save with it.
        several = kind is not None and jax.process_count() > 1
        if "_manager" in self.__dict__ and not several:
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
        # One that is no number judges nothing: it would be taken for the best.
        judged = metrics and self._best and math.isfinite(metrics[self._best])
        self._manager.save(
            step,
            args=steps.contents(state, position, self._config, self._card),
            metrics=dict(metrics) if judged else None,
            force=True,
        )
        self._saving = True

    def check(self) -> None:
        """Raises what the last save has failed of, once it is over; does not wait."""
        if self._saving and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Until the last save is over; raises what it has failed of."""
        self._saving = False
        self._manager.wait_until_finished()

    def restore(
        self, state: Tree, position: Mapping[str, int]
    ) -> tuple[Tree | None, list[str]]:
        """The newest whole checkpoint, or None if there is none.

        Damaged steps are set aside as `STEP.damaged` once an older one has been read
        in their place. When none can be read, nothing is moved and that is an error:
        a run never silently begins anew.

        Args:
          state: structure, shapes, dtypes and shardings of what is to come.
          position: of the data as this run has it, without `step`.

        Returns:
          The state, and sentences about what a user should know.

        Raises:
          ValueError: the checkpoint is of another model, config or data.
        """
        notes, damaged = [], {}
        found = steps.all_steps(self.directory)
        for step in found:
            if not steps.is_committed(step) and not hashes.have(step):
                notes.append(f"{steps.uncommitted(step)}; it will be cleared away")
                continue
            if wrong := damage.fault(step):
                damaged[step] = wrong
                continue
            notes += damage.known(step)
            try:
                with steps.reader(step) as reader:
                    saved, have = _texts(reader, step)
                    notes += self._compare(step, saved, position)
                    check_fit(have, state, f"checkpoint {step}")
                    restored = _arrays(reader, step, state)
            except steps.Unreadable as error:
                damaged[step] = str(error)
                continue
            if self._best:  # by a number that is no longer right the best would go
                older = found[found.index(step) + 1 :]
                damaged |= {old: damage.fault(old, arrays=False) for old in older}
            return restored, [*notes, *damage.set_aside(damaged)]
        if damaged:
            raise ValueError(
                f"no checkpoint in {self.directory} could be read: "
                + "; ".join(f"{step.name}: {why}" for step, why in damaged.items())
                + ". Repair them, or delete the directory to begin anew"
            )
        return None, notes

    def _compare(
        self, step: pathlib.Path, saved, position: Mapping[str, int]
    ) -> list[str]:
        """Refuses a restart that would not go on with the same run.

        Keys that are younger than the checkpoint had their default value then, and
        those that have moved since count as what they are called now.
        """
        have, want = map(self._flat, (saved["config"], self._config))
        have |= _prefixed("data: ", saved["position"])
        want |= _prefixed("data: ", position)
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
                f"checkpoint {step} was written with "
                + "; ".join(wrong)
                + ". To go on, give the same values; to start a new run from its "
                "weights, set init_from to it and use another workdir"
            )
        return said + frozen.compare(
            position.get("frozen", {}), saved["position"], f"checkpoint {step}"
        )

    def _flat(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """With all that it leaves to the defaults, as JSON gives it back."""
        return _flat_config(json.loads(self._whole(from_dict(config)).to_json()))


def _texts(reader: ocp.CheckpointManager, step: pathlib.Path) -> tuple[Any, Tree]:
    """Position and config of a step, and what is known of its arrays."""
    want = ocp.args.Composite(
        position=ocp.args.JsonRestore(), config=ocp.args.JsonRestore()
    )
    with steps.reading(step):
        saved = reader.restore(int(step.name), args=want)
        return saved, reader.item_metadata(int(step.name))["state"].tree


def _arrays(reader, step: pathlib.Path, state: Tree) -> Tree:
    arguments = ocp.checkpoint_utils.construct_restore_args(state)
    restore = ocp.args.PyTreeRestore(item=state, restore_args=arguments)
    with steps.reading(step):
        saved = reader.restore(int(step.name), args=ocp.args.Composite(state=restore))
    return saved["state"]


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


def _prefixed(prefix: str, position: Mapping[str, Any]) -> dict[str, Any]:
    """What tells of the data; not of the step, nor of the networks."""
    return {
        prefix + key: value
        for key, value in position.items()
        if key not in ("step", "frozen", "frozen_step")
    }
