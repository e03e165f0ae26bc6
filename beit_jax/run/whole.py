"""A config with every default that it leaves to the code written down.

So it is kept with a run: should a default change one day, what was trained before
means what it meant.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from beit_jax import config as config_lib
from beit_jax import tasks
from beit_jax.data.frames import FRAMES
from beit_jax.data.ops.masking import MASKS
from beit_jax.data.sources import SOURCES
from beit_jax.lookup import Table, completed, settings
from beit_jax.models.backbones import BACKBONES
from beit_jax.models.tokenizers import TOKENIZERS
from beit_jax.optim.schedules import SCHEDULES
from beit_jax.tasks.base import Task
from beit_jax.tasks.encoders import EncoderTask
from beit_jax.tasks.objectives import USUAL

Section = Mapping[str, Any]

TASK = Table(tasks.TASKS, ("config",))
BACKBONE = Table(BACKBONES, ("grid", "dtype", "mask_token", "final_norm"))
TOKENIZER = Table(TOKENIZERS, ("dtype", "image_size"))
SOURCE = Table(SOURCES, ("build",))
FRAME = Table(FRAMES)
# Sections that are what their own name says, and no more.
PLAIN = {
    "data.mask": Table(MASKS, ("draw", "batch", "grid")),
    "data.frame": FRAME,
    "data.eval_frame": FRAME,
    "optim.schedule": Table(SCHEDULES),
}


def whole(config: ConfigDict) -> ConfigDict:
    """The config of a run with the defaults of all that it names.

    What is not in our tables, a head of a user's own that is not here, stays as it is;
    so do network and head of a task of their own, who alone knows what it gives them.
    """
    made = config.to_dict()
    kind = tasks.TASKS.get(made["task"].get("name"))
    if getattr(kind, "__module__", "").startswith(tasks.__name__):
        made["model"] = _model(made["model"], made["task"], kind)
        made["task"] = _below(made["task"], made["model"], kind)
    made["task"] = completed(made["task"], TASK)
    for path, table in PLAIN.items():
        section, key = path.split(".")
        made[section][key] = completed(made[section][key], table)
    if "ratio" in made["data"]["mask"]:  # which says how many
        made["data"]["mask"].pop("max_patches", None)
    for key in ("source", "eval_source"):
        made["data"][key] = _source(made["data"][key])
    for section in made["evals"].values():
        section["source"] = _source(section["source"])
    return config_lib.from_dict(made)


def _below(task: Section, model: Section, kind: type[Task]) -> dict[str, Any]:
    """Also what a task names itself, head and target say."""
    made, usual = completed(task, TASK), kind.usual
    if model.get("name") in TOKENIZERS:
        usual = usual | {"objective": USUAL[TOKENIZERS[model["name"]]]}
    for path, table in tasks.SECTIONS.items():
        *above, key = path.split(".")
        section = made
        for name in above:
            section = section.get(name, {})
        if key in section:
            named = {"name": usual[path]} if path in usual else {}
            section[key] = completed(named | dict(section[key]), table)
    for key, (table, part) in tasks.SEVERAL.items():
        if key in made:
            made[key] = {
                name: completed({"name": name} | settings(part) | dict(one), table)
                for name, one in dict(made[key]).items()
            }
    for key, kind in tasks.SETTINGS.items():
        if key in made:
            made[key] = settings(kind) | dict(made[key])
    return made


def _model(model: Section, task: Section, kind: type[Task]) -> dict[str, Any]:
    """Not that of a frozen network, which is told where that is; and not what a variant
    or a preset gives, whose names are kept."""
    if model.get("name") in TOKENIZERS:
        return completed(model, TOKENIZER)
    name = model.get("name", "vit")
    if not issubclass(kind, EncoderTask) or name not in BACKBONES:
        return dict(model)
    told = BACKBONES[name].settings(model, task["name"] == "pretrain")
    made = completed({"name": name} | told, BACKBONE)
    left = {key: value for key, value in made.items() if key not in told}
    return {**model, **left, "name": name}


def _source(source: Section) -> dict[str, Any]:
    """Those of a mixture's parts, too."""
    made = completed(source, SOURCE)
    if made.get("name") == "mixture":
        made["parts"] = tuple(map(_source, made["parts"]))
    return made
