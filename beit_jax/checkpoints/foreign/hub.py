"""Checkpoints by the name of their repository on the Hugging Face hub.

Nobody means a stranger's repository by the name of a folder that is not there: who
wants one downloaded says "hf:owner/name".
"""

import pathlib
import re

from beit_jax.checkpoints.foreign.files import TEXTS

# What of a repository is downloaded beside TEXTS: the first kind that it has.
WEIGHTS = {
    ".safetensors": (
        "model.safetensors",
        "model-*.safetensors",
        "model.safetensors.index.json",
    ),
    ".bin": (
        "pytorch_model.bin",
        "pytorch_model-*.bin",
        "pytorch_model.bin.index.json",
    ),
}
PREFIX = "hf:"
_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


def is_name(text: str) -> bool:
    """Whether a repository could be called so: "owner/name"."""
    return bool(_NAME.fullmatch(text))


def named(text: str) -> str:
    """Of "hf:owner/name" the name; nothing of any other text.

    Raises:
      ValueError: no repository could be called so.
    """
    name = text.removeprefix(PREFIX)
    if name != text and not is_name(name):
        raise ValueError(f"{text!r} must be {PREFIX}owner/name to be on the hub")
    return name if name != text else ""


def downloaded(name: str) -> pathlib.Path | None:
    """The folder of a repository that is already here."""
    try:
        return download(name, here=True)
    except ValueError:
        return None


def download(
    name: str, cache: str | pathlib.Path | None = None, here: bool = False
) -> pathlib.Path:
    """The folder of a repository's newest version, with its weights and texts.

    What has been downloaded before is not downloaded again, and serves when there is no
    connection. HF_HOME, HF_TOKEN, HF_HUB_OFFLINE and the like are obeyed.

    Args:
      name: "owner/name".
      cache: the folder for all repositories, instead of huggingface_hub's own.
      here: download nothing.

    Raises:
      ValueError: there is no such repository here or there, it has no weights of a
        known name, or the package is missing.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ValueError(
            f"to download {name!r} from the Hugging Face hub: "
            "pip install 'beit_jax[hub]'"
        ) from error
    for suffix, weights in WEIGHTS.items():
        try:
            folder = snapshot_download(
                name,
                allow_patterns=[*TEXTS, *weights],
                cache_dir=cache,
                local_files_only=here,
            )
        except Exception as error:  # of another HTTP library in each version
            raise ValueError(
                f"{name!r} cannot be downloaded from the Hugging Face hub: "
                f"{_brief(error)}"
            ) from error
        if any(pathlib.Path(folder).glob(f"*{suffix}")):
            return pathlib.Path(folder)
    names = " nor ".join(weights[0] for weights in WEIGHTS.values())
    raise ValueError(
        f"{name!r} on the Hugging Face hub has neither {names}; download what it has "
        "and give the path of the file"
    )


def _brief(error: Exception) -> str:
    """Its first two lines, of which one alone says little."""
    lines = (str(error).strip() or repr(error)).splitlines()
    return " ".join(filter(None, lines[:3]))
