"""DeepMind's VQ-VAE in PyTorch, with a codebook of moving averages."""

import pathlib
from collections.abc import Mapping

import numpy as np

from beit_jax.checkpoints.foreign import rules, tokenizers
from beit_jax.checkpoints.foreign.files import Found
from beit_jax.checkpoints.foreign.rules import Foreign, Hints, Op, Row, Understood
from beit_jax.checkpoints.steps import Restored
from beit_jax.models.vqvae import VQVAE

DIALECTS = ("official",)
CODES = "vq_vae.codebook.weight"
BLOCK = "{net}._blocks.residual.residual_blocks.residual_{i}._block.conv_{conv}.weight"
# What such a network is among ours.
KIND = {"network": "convolutions", "patch_size": 4, "learning": "ema", "l2_norm": False}


def rows(res_blocks: int = 2) -> list[Row]:
    """The table of a `models.vqvae.VQVAE` of this KIND."""
    table: list[Row] = [(CODES, "codebook/quantizer/embedding", rules.SAME)]
    table += _conv("encoder._blocks.conv_1", "encoder/down_2", rules.CONV)
    table += _conv("encoder._blocks.conv_2", "encoder/down_4", rules.CONV)
    table += _conv("encoder._blocks.conv_3", "encoder/conv3x3", rules.CONV)
    table += _conv("pre_vq_conv", "encoder/to_code", rules.CONV)
    table += _conv("decoder._blocks.conv_1", "decoder/from_code", rules.CONV)
    table += _conv("decoder._blocks.conv_t_1", "decoder/up_2", rules.CONV_TRANSPOSE)
    table += _conv("decoder._blocks.conv_t_2", "decoder/up_1", rules.CONV_TRANSPOSE)
    for net in ("encoder", "decoder"):
        for i in range(res_blocks):
            for conv, ours in ((1, "conv3x3"), (2, "conv1x1")):
                theirs = BLOCK.format(net=net, i=i, conv=conv)
                path = f"params/{net}/block_{i}/{ours}/kernel"
                table.append((theirs, path, rules.CONV))
    return table


def _conv(theirs: str, ours: str, op: Op) -> list[Row]:
    return [
        (f"{theirs}.weight", f"params/{ours}/kernel", op),
        (f"{theirs}.bias", f"params/{ours}/bias", rules.SAME),
    ]


def recognise(state: Mapping[str, rules.Array]) -> str:
    """ "official", or "" for none."""
    return "official" if CODES in state else ""


def understand(found: Found, dialect: str, hints: Hints) -> Understood:
    """See checkpoints/foreign/families.py.

    The file does not tell how often codes were used, so none of them is to restart.

    Raises:
      ValueError: arrays of other shapes than such a network has.
    """
    vocab, code_dim = tokenizers.shape(found, CODES, 2)
    first = BLOCK.format(net="encoder", i=0, conv=1)
    res_blocks = sum(".residual." in name for name in found.state) // 4
    model = {
        "name": "vqvae",
        "vocab": vocab,
        "code_dim": code_dim,
        "width": tokenizers.shape(found, "encoder._blocks.conv_3.weight", 4)[0],
        "res_blocks": res_blocks,
        "res_hidden": tokenizers.shape(found, first, 4)[0] if res_blocks else 0,
        "restart_below": 0.0,
        **KIND,
        "image_size": 112,
        "pixels": "centred",
    }
    return tokenizers.understood(rows(res_blocks), model, hints, complete=_complete)


def _complete(tree: rules.Tree) -> None:
    """Of the moving averages only the codes are known: a batch used each once."""
    codebook = tree["codebook"]["quantizer"]
    codebook["embed_sum"] = codebook["embedding"].copy()
    codebook["cluster_size"] = np.ones(len(codebook["embedding"]), np.float32)
    codebook["initted"] = np.array(True)


def foreign(saved: Restored, dialect: str, target: pathlib.Path) -> Foreign:
    """See checkpoints/foreign/families.py.

    Raises:
      ValueError: it is of another kind.
    """
    have = tokenizers.settings(saved, VQVAE, KIND)
    if wrong := [f"{k}={v!r}" for k, v in have.items() if v != KIND[k]]:
        wanted = ", ".join(f"{k}={v!r}" for k, v in KIND.items())
        raise ValueError(
            f"DeepMind's VQ-VAE has {wanted}; {saved.path} has {', '.join(wrong)}"
        )
    return Foreign(
        rows(**tokenizers.settings(saved, VQVAE, ("res_blocks",))),
        ignorable=("codebook/quantizer/*",),
        notes=tokenizers.pixel_notes(saved, "centred"),
    )
