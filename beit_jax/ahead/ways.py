"""What may make a step fit: changes of a config, the cheapest first."""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

Change = dict[str, Any]
_PARTS = (2, 4, 8, 16)


def ways(config: ConfigDict, devices: int, blocks: bool) -> Iterator[Change]:
    """Changes as `config.change` takes them, each with those before that help it.

    First what costs arithmetic, then what costs messages, then time; a smaller batch,
    which is another recipe, last.

    Args:
      blocks: whether what is trained has blocks that can be computed again.
    """
    change: Change = {}
    remat = config.model.get("remat", "none")
    kinds = ("none", "dots", "full")
    for kind in kinds[kinds.index(remat) + 1 :] if blocks else ():
        change = {"model__remat": kind}
        yield change
    split = devices // config.mesh.tensor  # -1: tensor takes all there are
    if split > 1 and config.mesh.fsdp not in (-1, split):
        change = change | {"mesh__data": 1, "mesh__fsdp": split}
        yield change
    for parts in _PARTS:
        yield change | {"optim__accumulate": parts * config.optim.accumulate}
    for parts in _PARTS:
        yield change | {"data__batch_size": config.data.batch_size // parts}


def flags(change: Change) -> str:
    """As a person would give it on the command line."""
    return " ".join(
        f"--config.{name.replace('__', '.')}={value}" for name, value in change.items()
    )
