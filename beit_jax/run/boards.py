"""Where a run is told to besides its work directory: W&B, MLflow; both are extras.

Each has the methods of `Board`. What run of theirs it is, is kept in the work directory
as boards.json, so that a run that goes on goes on there. Where they lie and who may
write, their own variables of the environment say (WANDB_MODE, WANDB_PROJECT,
MLFLOW_TRACKING_URI, …).
"""

import json
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from beit_jax.lookup import lookup, needed
from beit_jax.text import UTF8

KNOWN = "boards.json"  # in a work directory: name -> the run's id there
PROJECT = "beit_jax"  # unless the environment names another


class Wandb:
    """A run of Weights & Biases; WANDB_MODE=offline writes into the work directory."""

    package = "wandb"

    def __init__(self, workdir: pathlib.Path, config: Mapping[str, Any], known: str):
        """`known` is its id from an earlier start, or ""."""
        self._wandb = needed(self.package, "wandb")
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=str(workdir),
            name=workdir.name,
            id=known or None,
            resume="allow",
            config=dict(config),
        )
        # A run that goes on tells some steps again, which wandb's own count refuses.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        self.id = self._run.id
        self._told: dict[str, float] = {}

    def scalar(self, name: str, value: float, step: int) -> None:
        self._told |= {name: value, "step": step}

    def text(self, name: str, text: str, step: int) -> None:
        self._run.alert(title=name, text=text)

    def image(self, name: str, image: np.ndarray, step: int) -> None:
        self._run.log({name: self._wandb.Image(image), "step": step})

    def flush(self) -> None:
        if self._told:
            self._run.log(self._told)
        self._told = {}

    def close(self) -> None:
        self.flush()
        self._run.finish()


class MLflow:
    """A run of MLflow, in the experiment that MLFLOW_EXPERIMENT_NAME says."""

    package = "mlflow"

    def __init__(self, workdir: pathlib.Path, config: Mapping[str, Any], known: str):
        """`known` is its id from an earlier start, or ""."""
        mlflow = needed(self.package, "mlflow")
        self._metric = mlflow.entities.Metric
        self._client = mlflow.MlflowClient()
        self.id = known or self._new(workdir.name)
        self._client.update_run(self.id, status="RUNNING")
        self._client.log_dict(self.id, dict(config), "config.json")
        self._told: list[Any] = []

    def _new(self, name: str) -> str:
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(title)
        experiment = (
            found.experiment_id if found else self._client.create_experiment(title)
        )
        return self._client.create_run(experiment, run_name=name).info.run_id

    def scalar(self, name: str, value: float, step: int) -> None:
        now = int(1000 * time.time())
        self._told.append(self._metric(name, float(value), now, step))

    def text(self, name: str, text: str, step: int) -> None:
        self._client.log_text(self.id, text, f"{name}_{step:07d}.txt")

    def image(self, name: str, image: np.ndarray, step: int) -> None:
        file = f"{name.replace('/', '_')}_{step:07d}.png"
        self._client.log_image(self.id, Image.fromarray(image), artifact_file=file)

    def flush(self) -> None:
        if self._told:
            self._client.log_batch(self.id, metrics=self._told)
        self._told = []

    def close(self) -> None:
        self.flush()
        self._client.set_terminated(self.id)


# A name in log.writers -> what is made of a work directory, a config and an id.
BOARDS: dict[str, Callable[..., Wandb | MLflow]] = {"wandb": Wandb, "mlflow": MLflow}


def check(names: Sequence[str]) -> None:
    """Raises ValueError for one that there is not, or whose package is not here."""
    for name in names:
        needed(lookup(BOARDS, name, "log.writers").package, name)


def begin(
    names: Sequence[str], workdir: pathlib.Path, config: Mapping[str, Any]
) -> list[Wandb | MLflow]:
    """The boards of a run, as it was told to before if it was."""
    path = workdir / KNOWN
    known = json.loads(path.read_text(**UTF8)) if path.exists() else {}
    made = {name: BOARDS[name](workdir, config, known.get(name, "")) for name in names}
    if made:
        known |= {name: board.id for name, board in made.items()}
        path.write_text(json.dumps(known, indent=1) + "\n", **UTF8)
    return list(made.values())
