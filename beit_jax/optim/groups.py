"""Groups of parameters with settings of their own, by the beginnings of their paths."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import optax
from ml_collections import ConfigDict

from beit_jax import config as config_lib
from beit_jax.checkpoints.names import covered, name_of
from beit_jax.config import Plan
from beit_jax.lookup import nearest
from beit_jax.optim import schedules
from beit_jax.optim.schedules import Rate

Tree = Any

REST = "rest"  # what no group of the config covers
STILL = "still"  # what optim.train leaves as it is
# What a group may change; all else of `optim` is the whole run's.
KEYS = ("name", "lr", "min_lr", "warmup_lr", "schedule", "weight_decay")
KEYS += ("weight_decay_end", "b1", "b2", "eps", "momentum")


class Group(NamedTuple):
    """Parameters that move by the same settings.

    In its trees the parameters of other groups are `optax.MaskedNode()`.

    Attributes:
      where: what its settings are called, "optim" or "optim.groups.NAME".
      settings: the section `optim`, with what the group changes.
      rate: the learning rate.
      decay: the weight decay.
      scales: the factor on each parameter's rate, 0 where it is frozen.
      decayed: True where weight decay applies.
      layers: the number of each one's layer, see `Task.layers`.
    """

    where: str
    settings: ConfigDict
    rate: Rate
    decay: float | Rate
    scales: Tree
    decayed: Tree
    layers: Tree


def make(
    config: ConfigDict, plan: Plan, labels: Tree, **trees: Tree
) -> dict[str, Group]:
    """Name -> group, REST among them.

    Args:
      config: the section `optim`.
      labels: the name of each parameter's group.
      trees: `Group.scales`, `.decayed` and `.layers` of all parameters.
    """

    def group(name: str) -> Group:
        where = "optim" if name == REST else f"optim.groups.{name}"
        settings = config if name == REST else _settings(config, name, where)
        rates = settings.lr, settings.min_lr, settings.warmup_lr
        decays = settings.weight_decay, settings.weight_decay_end
        return Group(
            where,
            settings,
            schedules.make(settings.schedule, plan, *rates),
            schedules.over_the_run(plan, *decays),
            **{key: _own(tree, labels, name) for key, tree in trees.items()},
        )

    return {name: group(name) for name in (REST, *config.groups)}


def _own(tree: Tree, labels: Tree, name: str) -> Tree:
    return jax.tree.map(
        lambda label, leaf: leaf if label == name else optax.MaskedNode(), labels, tree
    )


def _settings(config: ConfigDict, name: str, where: str) -> ConfigDict:
    """The section `optim` as a group has it; its changes are checked like that."""
    own = {key: value for key, value in config.groups[name].items() if key != "prefix"}
    for key in own:
        if key not in KEYS:
            raise ValueError(
                f"{where} takes no setting {key!r}{nearest(key, KEYS)} (it takes "
                f"prefix, {', '.join(sorted(KEYS))}; all else is the whole run's)"
            )
    try:
        config_lib.check(ConfigDict({"optim": own}), whole=False)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    settings = config.copy_and_resolve_references()
    for key, value in own.items():
        settings[key] = value
    return settings


def labels(groups: Mapping[str, Any], params: Tree, resting: Tree) -> Tree:
    """The name of each parameter's group, REST where none covers it.

    Args:
      groups: the section `optim.groups`, {name: {"prefix": "a,b/c", ...}}.
      resting: True for what does not train, which is in none: STILL.

    Raises:
      ValueError: a group without a prefix, one that no parameter has, or two that have
        the same parameter.
    """
    owner: dict[str, str] = {}
    for name, section in groups.items():
        for path in covered(params, _prefix(name, section), f"optim.groups.{name}"):
            if owner.setdefault(path, name) != name:
                raise ValueError(
                    f"optim.groups: both {owner[path]!r} and {name!r} cover {path}; "
                    "give them other prefixes"
                )
    return jax.tree_util.tree_map_with_path(
        lambda path, _, rests: STILL if rests else owner.get(name_of(path), REST),
        params,
        resting,
    )


def _prefix(name: str, section: Any) -> str:
    if name in (REST, STILL) or not name.isidentifier():
        raise ValueError(
            f"optim.groups: {name!r} cannot name a group; take a word, but not "
            f"{REST!r} or {STILL!r}"
        )
    prefix = section.get("prefix") if isinstance(section, (dict, ConfigDict)) else None
    if not (prefix and isinstance(prefix, str)):
        raise ValueError(
            f"optim.groups.{name} needs a prefix, with what the paths of its "
            'parameters begin: "a,b/c"'
        )
    return prefix
