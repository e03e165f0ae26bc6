"""The "customized" discrete VAE of BEiT's code, names after its modeling_discrete_vae.

Its files have the state dict under "weights".
"""

import pathlib
import re
from collections.abc import Mapping

from beit_jax.checkpoints.foreign import rules, tokenizers
from beit_jax.checkpoints.foreign.files import Found
from beit_jax.checkpoints.foreign.rules import Foreign, Hints, Op, Row, Understood
from beit_jax.checkpoints.steps import Restored
from beit_jax.models.discrete_vae import DiscreteVAE

DIALECTS = ("official",)
CODES, FIRST = "codebook.weight", "encoder.0.0.weight"


def rows(patch_size: int = 8, res_blocks: int = 1) -> list[Row]:
    """The table of a `models.discrete_vae.DiscreteVAE` of these sizes."""
    stages = patch_size.bit_length() - 1
    table: list[Row] = [(CODES, "params/decoder/codebook/kernel", rules.SAME)]
    for net, resize, op in (
        ("encoder", "down", rules.ANY_CONV),
        ("decoder", "up", rules.CONV_TRANSPOSE),
    ):
        for stage in range(1, stages + 1):
            at = (stage - 1) * (1 + res_blocks)
            table += _conv(f"{net}.{at}.0", f"{net}/{resize}_{stage}", op)
            for block in range(1, res_blocks + 1):
                theirs = f"{net}.{at + block}.net"
                ours = f"{net}/stage_{stage}_block_{block}"
                for i in range(3):
                    table += _conv(f"{theirs}.{2 * i}", f"{ours}/conv_{i + 1}")
        table += _conv(f"{net}.{stages * (1 + res_blocks)}", f"{net}/output")
    return table


def _conv(theirs: str, ours: str, op: Op = rules.ANY_CONV) -> list[Row]:
    weight = (f"{theirs}.weight", f"params/{ours}/kernel", op)
    return [weight, (f"{theirs}.bias", f"params/{ours}/bias", rules.SAME)]


def recognise(state: Mapping[str, rules.Array]) -> str:
    """ "official", or "" for none."""
    return "official" if CODES in state and FIRST in state else ""


def understand(found: Found, dialect: str, hints: Hints) -> Understood:
    """See checkpoints/foreign/families.py.

    Raises:
      ValueError: arrays of other shapes than such a network has.
    """
    vocab, code_dim = tokenizers.shape(found, CODES, 2)
    halvings, blocks = (
        sum(bool(re.fullmatch(pattern, name)) for name in found.state)
        for pattern in (r"encoder\.\d+\.0\.weight", r"encoder\.\d+\.net\.0\.weight")
    )
    model = {
        "name": "discrete_vae",
        "vocab": vocab,
        "code_dim": code_dim,
        "hidden": tokenizers.shape(found, FIRST, 4)[0],
        "patch_size": 1 << halvings,
        "res_blocks": blocks // halvings,
        "image_size": 14 << halvings,
        "pixels": "half",
    }
    table = rows(model["patch_size"], model["res_blocks"])
    made = tokenizers.understood(table, model, hints)
    made.sections["task"]["objective"] = {"likelihood": "mse"}  # DALL-E's needs stats
    return made


def foreign(saved: Restored, dialect: str, target: pathlib.Path) -> Foreign:
    """See checkpoints/foreign/families.py."""
    sizes = tokenizers.settings(saved, DiscreteVAE, ("patch_size", "res_blocks"))
    return Foreign(rows(**sizes), notes=tokenizers.pixel_notes(saved, "half"))
