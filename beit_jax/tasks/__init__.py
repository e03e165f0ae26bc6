"""The kinds of run. A new task is one file and one line here."""

from ml_collections import ConfigDict

from beit_jax import lookup
from beit_jax.heads import HEADS
from beit_jax.lookup import Table
from beit_jax.targets import TARGETS
from beit_jax.targets.teachers import TEACHERS
from beit_jax.tasks import (
    base,
    classify,
    multilabel,
    pretrain,
    probe,
    regress,
    segment,
    tokenizer,
)
from beit_jax.tasks.inference import Inference
from beit_jax.tasks.losses import LOSSES
from beit_jax.tasks.objectives import OBJECTIVES
from beit_jax.tasks.pixel_losses import PIXEL_LOSSES, part

TASKS = {
    "classify": classify.Classify,
    "multilabel": multilabel.Multilabel,
    "pretrain": pretrain.Pretrain,
    "probe": probe.Probe,
    "regress": regress.Regress,
    "segment": segment.Segment,
    "tokenizer": tokenizer.Tokenizer,
}

TEACHER = Table(TEACHERS, ("grid", "patch_size"))
# Sections below `task`, which name something too; one that holds others before these.
SECTIONS = {
    "target": Table(TARGETS, ("grid", "patch_size")),
    "target.teacher": TEACHER,
    "head": Table(
        HEADS,
        ("classes", "pool", "init_scale", "outputs", "norm_eps", "dtype")
        + ("blocks", "encoder_depth", "encoder_drop_path"),
    ),
    "loss": Table(LOSSES),
    "objective": Table(OBJECTIVES, ("model", "space", "grid")),
    "objective.teacher": TEACHER,
}
# Those that have sections in them, any number: what they name, what all of them have.
SEVERAL = {"losses": (Table(PIXEL_LOSSES), part)}
# And those that have settings alone.
SETTINGS = {"inference": Inference}


def build(config: ConfigDict) -> base.Task:
    """The task of a run; raises ValueError for settings that do not fit."""
    return lookup.build(TASKS, config.task, "beit_jax.tasks", config=config)
