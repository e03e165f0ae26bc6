"""Networks that a run uses and never trains: tokenizers, teachers, probed encoders.

What such a network computes is part of what a run means. So its config and the digest
of its arrays go into every checkpoint, and a run does not go on with another network
that was put in its place.
"""

import functools
import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import numpy as np

from beit_jax.checkpoints.names import flatten
from beit_jax.checkpoints.read import is_ours, locate, restore, step_of
from beit_jax.checkpoints.steps import Restored, read_config

Tree = Any
Record = dict[str, Any]


class Network(Protocol):
    """What a task tells of a network that it uses."""

    path: pathlib.Path | None  # of its checkpoint, if it has one

    def shapes(self) -> Tree:
        """`jax.ShapeDtypeStruct`s of what `load` gives."""

    def load(self) -> Tree:
        """Its weights, as the compiled step takes them."""

    def record(self) -> Record | None:
        """What tells it from others, as plain data; None: the config does."""


def variables(saved: Restored) -> Tree:
    """What a network's `apply` takes."""
    return {"params": saved.params, **saved.model_state}


class Frozen:
    """The network of a checkpoint.

    Which checkpoint it is, is settled once: a network that trains on while a run uses
    it must not change the run.

    Args:
      checkpoint: a run's work directory, another project's file: see read.py.
      prepare: makes of the checkpoint what the step is to have.

    Raises:
      ValueError: there is no checkpoint.
    """

    def __init__(
        self,
        checkpoint: str | pathlib.Path,
        prepare: Callable[[Restored], Tree] = variables,
    ):
        self.path = locate(checkpoint)
        self._prepare = prepare
        self._saved: Restored | None = None

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """That of the run that trained it; reads no arrays of ours."""
        if is_ours(self.path):
            return read_config(self.path)
        return self._read().config

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of its arrays with their names, in the order of these."""
        found = hashlib.sha256()
        for name, leaf in sorted(flatten(variables(self._read())).items()):
            leaf = np.ascontiguousarray(leaf)
            found.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
            found.update(leaf.data.cast("B") if leaf.size else b"")
        return found.hexdigest()

    def shapes(self) -> Tree:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
            self._prepare(self._read()),
        )

    def load(self) -> Tree:
        """Lets go of what was read until now: the host need not keep it."""
        saved, _ = self._read(), self.digest
        self._saved = None
        return self._prepare(saved)

    def record(self) -> Record:
        """Its path, digest, and the section `model` of its config."""
        model = {"pixels": "half"} | self.config["model"]
        model = {name: _plain(value) for name, value in model.items()}
        return {"path": str(self.path), "digest": self.digest, "model": model}

    def _read(self) -> Restored:
        """Once, whatever is asked for before `load`."""
        if self._saved is None:
            self._saved = restore(self.path)
        return self._saved


class Untrained:
    """Random weights in a network's place, from a seed of the code's own."""

    path = None

    def __init__(self, make: Callable[[], Tree]):
        self._make = make

    def shapes(self) -> Tree:
        return jax.eval_shape(self._make)

    def load(self) -> Tree:
        return jax.jit(self._make)()

    def record(self) -> None:
        return None


def shapes(networks: Mapping[str, Network]) -> dict[str, Tree]:
    return {name: network.shapes() for name, network in networks.items()}


def load(networks: Mapping[str, Network]) -> dict[str, Tree]:
    return {name: network.load() for name, network in networks.items()}


def records(networks: Mapping[str, Network]) -> dict[str, Record]:
    """What a checkpoint says of the networks that its run used, by their names."""
    told = {name: network.record() for name, network in networks.items()}
    return {name: record for name, record in told.items() if record}


def places(networks: Mapping[str, Network]) -> list[str]:
    """A sentence on each network that comes out of a checkpoint."""
    paths = {name: network.path for name, network in networks.items()}
    return [f"frozen {name} from {path}" for name, path in paths.items() if path]


def compare(
    have: Mapping[str, Record], position: Mapping[str, Any], where: str
) -> list[str]:
    """Holds the networks of a run against those that a checkpoint was trained with.

    Args:
      have: the run's, by name.
      position: of the checkpoint; says nothing of them in other projects'.
      where: the checkpoint, for messages.

    Returns:
      Sentences about what could not be compared.

    Raises:
      ValueError: another network.
    """
    if "frozen" not in position:
        return _compare_steps(have, position, where)
    then = position["frozen"]
    for name in sorted(have.keys() | then.keys()):
        if wrong := _difference(then.get(name), have.get(name)):
            raise ValueError(
                f"{where} was trained with another frozen {name}: {wrong}. Name that "
                "network as `checkpoint` in config.task, or bring it back to its "
                "place; with another one it would be another run, in another workdir"
            )
    return []


def _compare_steps(have, position, where: str) -> list[str]:
    """Runs from before there were digests tell the step of a tokenizer of ours."""
    paths = [pathlib.Path(record["path"]) for record in have.values()]
    then = position.get("frozen_step")
    if then is None or not paths:
        return []
    if [then] != [step_of(path) for path in paths]:
        raise ValueError(
            f"{where} was trained on frozen weights of step {then}, but the recipe's "
            f"are {paths[0]}; name that step as `checkpoint` in config.task"
        )
    return [
        f"{where} does not tell the digest of its frozen network; {paths[0]} is taken "
        "to be that"
    ]


def _difference(then: Record | None, now: Record | None) -> str:
    """What tells two networks apart; "" if nothing does."""
    if then is None or now is None:
        return f"{_brief(then)}, and not {_brief(now)}"
    if then["digest"] != now["digest"]:
        return f"{_brief(then)}, and {now['path']} has {now['digest'][:12]}"
    one, two = then["model"], now["model"]
    # What only one of them tells is a default of the other's version.
    wrong = [key for key in one if key in two and one[key] != two[key]]
    return ", ".join(f"model.{k}={one[k]!r}, not {two[k]!r}" for k in wrong)


def _brief(record: Record | None) -> str:
    if record is None:
        return "none"
    digest = record["digest"][:12]
    return f"that of {record['path']}, whose arrays have the SHA-256 {digest}…"


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value
