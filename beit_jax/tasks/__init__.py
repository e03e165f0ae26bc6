"""The kinds of run. A new task is one file and one line here."""

from ml_collections import ConfigDict

from beit_jax import lookup
from beit_jax.tasks import (
    base,
    classify,
    multilabel,
    pretrain,
    probe,
    regress,
    tokenizer,
)

TASKS = {
    "classify": classify.Classify,
    "multilabel": multilabel.Multilabel,
    "pretrain": pretrain.Pretrain,
    "probe": probe.Probe,
    "regress": regress.Regress,
    "tokenizer": tokenizer.Tokenizer,
}


def build(config: ConfigDict) -> base.Task:
    """The task of a run; raises ValueError for settings that do not fit."""
    return lookup.build(TASKS, config.task, "beit_jax.tasks", config=config)
