"""PyTorch checkpoints of DeepMind's VQ-VAE, with EMA codebook: names and settings."""

import pathlib
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from beit_jax.convert.rules import CONV, CONV_TRANSPOSE, SAME, Op, Row, Tree, read

CODEBOOK = "codebook/quantizer/embedding"
BLOCK = "{net}._blocks.residual.residual_blocks.residual_{i}._block.conv_{conv}.weight"


def rows(res_blocks: int = 2) -> list[Row]:
    """The table of a `models.vqvae.VQVAE` of network "convolutions", patch_size 4.

    Ours are paths in {"params": ..., "codebook": ...}.
    """
    table: list[Row] = [("vq_vae.codebook.weight", CODEBOOK, SAME)]
    table += _conv("encoder._blocks.conv_1", "encoder/down_2", CONV)
    table += _conv("encoder._blocks.conv_2", "encoder/down_4", CONV)
    table += _conv("encoder._blocks.conv_3", "encoder/conv3x3", CONV)
    table += _conv("pre_vq_conv", "encoder/to_code", CONV)
    table += _conv("decoder._blocks.conv_1", "decoder/from_code", CONV)
    table += _conv("decoder._blocks.conv_t_1", "decoder/up_2", CONV_TRANSPOSE)
    table += _conv("decoder._blocks.conv_t_2", "decoder/up_1", CONV_TRANSPOSE)
    for net in ("encoder", "decoder"):
        for i in range(res_blocks):
            for conv, ours in ((1, "conv3x3"), (2, "conv1x1")):
                theirs = BLOCK.format(net=net, i=i, conv=conv)
                path = f"params/{net}/block_{i}/{ours}/kernel"
                table.append((theirs, path, CONV))
    return table


def _conv(theirs: str, ours: str, op: Op) -> list[Row]:
    return [
        (f"{theirs}.weight", f"params/{ours}/kernel", op),
        (f"{theirs}.bias", f"params/{ours}/bias", SAME),
    ]


def settings(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What `models.vqvae.VQVAE` must be built with, from the arrays' shapes.

    The file does not tell how often codes were used, so none of them is to restart.
    """
    vocab, code_dim = state["vq_vae.codebook.weight"].shape
    first = BLOCK.format(net="encoder", i=0, conv=1)
    res_blocks = sum(name.startswith("encoder._blocks.residual") for name in state) // 2
    return {
        "network": "convolutions",
        "vocab": int(vocab),
        "code_dim": int(code_dim),
        "width": len(state["encoder._blocks.conv_3.bias"]),
        "res_blocks": res_blocks,
        "res_hidden": len(state[first]) if res_blocks else 0,
        "patch_size": 4,
        "restart_below": 0.0,
    }


def convert(state: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], Tree, Tree]:
    """A state dict -> settings, params, model_state of our VQ-VAE.

    Its pixels are `rgb / 255 - 0.5`. Of the moving averages only the codes are known:
    each counts as used once by a batch.

    Raises:
      ValueError: names that such a checkpoint does not have, or that are missing.
    """
    if "vq_vae.codebook.weight" not in state:
        raise ValueError(
            "no DeepMind VQ-VAE: the state dict lacks 'vq_vae.codebook.weight'; it has "
            f"{sorted(state)[:8]}"
        )
    made = settings(state)
    tree = read(rows(made["res_blocks"]), state)
    codebook = tree["codebook"]["quantizer"]
    codebook["embed_sum"] = codebook["embedding"].copy()
    codebook["cluster_size"] = np.ones(made["vocab"], np.float32)
    codebook["initted"] = np.array(True)
    return made, tree["params"], {"codebook": tree["codebook"]}


def load(path: str | pathlib.Path) -> tuple[dict[str, Any], Tree, Tree]:
    """Settings, params, model_state from a state dict in a file.

    Args:
      path: .npz of the arrays by name, or what torch.save wrote (needs the extra
        "torch"; no code in it is run).

    Raises:
      ValueError: a file that is not there, cannot be read or holds something else.
    """
    path = pathlib.Path(path)
    read_file = _read_npz if path.suffix == ".npz" else _read_torch
    try:
        state = read_file(path)
    except (OSError, ValueError, RuntimeError, EOFError) as error:
        raise ValueError(f"cannot read a state dict from {path}: {error}") from error
    except (zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is damaged, or not what it claims") from error
    return convert(state)


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path):  # np.load would take what is none for a pickle
        pass
    with np.load(path) as arrays:
        return dict(arrays)


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            "it needs PyTorch: pip install 'beit_jax[torch]', or give the arrays as "
            ".npz"
        ) from error
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {name: value.numpy() for name, value in state.items()}
