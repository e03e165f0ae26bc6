"""Which tensor of a torch peer is which of ours, by the tables of checkpoints."""

import importlib.metadata
from collections.abc import Mapping

import numpy as np

from beit_jax.checkpoints.foreign import beit_names, dvae, rules
from tests.parity.cases import Case

Array = np.ndarray


def theirs(
    case: Case, flat: Mapping[str, Array], recorded: bool = False
) -> dict[str, Array]:
    """Our parameters (or gradients) by path -> the peer's by name.

    Args:
      recorded: as in tests/golden/, and not as in the peer that is installed.
    """
    flat = {f"params/{path}": x for path, x in flat.items()}
    if case.kind.startswith("dvae"):
        return _dvae(case, flat)
    hf = case.peer == "transformers"
    names = beit_names.Names(
        hf, hf and (recorded or _is_version_5()), pretrains=case.kind == "mim"
    )
    heads = flat["params/encoder/blocks/attn/qkv"].shape[-2]
    parts = [part for part in beit_names.parts(heads) if part.ours in flat]
    return rules.write(names.rows(parts), flat)[0]


def _is_version_5() -> bool:
    """Of transformers, where it is installed."""
    try:
        version = importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        return True
    return int(version.split(".")[0]) >= 5


def _dvae(case: Case, flat: Mapping[str, Array]) -> dict[str, Array]:
    table = dvae.rows(**case.model)
    if case.kind == "dvae_encoder":
        table = dvae.encoder_rows(table, "hf")
    return rules.write(table, flat)[0]
