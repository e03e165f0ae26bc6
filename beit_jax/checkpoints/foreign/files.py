"""Files of weights: names and arrays out of every kind that is known, and into some.

What kind a file is, its content tells and not its name.
"""

import json
import pathlib
import re
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from beit_jax.checkpoints.foreign import archive, safetensors_file, torch_file

State = dict[str, np.ndarray]

# Read where a folder has them, whether it is named or its file, one of WHOLE.
TEXTS = ("config.json", "preprocessor_config.json")
WHOLE = ("model.safetensors", "pytorch_model.bin")  # what a folder has, ...
INDEX = tuple(f"{name}.index.json" for name in WHOLE)  # ... or where its parts are
HALVES = ("encoder.pkl", "decoder.pkl")  # OpenAI's discrete VAE
TORCH = (".pth", ".pt", ".bin")
SINGLE = (".safetensors", ".npz", *TORCH)
AGAIN = "download or copy it again, or save its state dict anew"

SAFETENSORS = rb"(?s).{5}\0\0\0{"  # the header's length, and JSON
# How a file begins that is no file of weights.
OTHER_KINDS = {
    rb"\Z": "is empty",
    rb"version https://git-lfs": "is git-lfs's pointer to the file: run `git lfs pull`",
    rb"\s*<(!doctype|html|\?xml)": "is a web page, perhaps a login or an error",
    rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf": "is compressed: unpack it",
    rb"(?s).{257}ustar": "is a tar archive: unpack it",
    rb"\x89HDF": "is of HDF5: take the file for PyTorch",
}


class Found(NamedTuple):
    """What a file or folder has."""

    path: pathlib.Path  # absolute
    state: State  # as stored; mostly read-only views of the mapped file
    # "metadata" of .safetensors; "notes" on what was taken of PyTorch's; TEXTS, as JSON
    texts: dict[str, Any]


def read(path: str | pathlib.Path) -> Found:
    """Reads a file of weights, or a folder with one.

    A folder has one of WHOLE, or one of INDEX and the files that it lists, or HALVES
    (whose names then begin with "encoder." and "decoder."), or just one of SINGLE.

    Raises:
      ValueError: there are no weights, or a file is damaged, hostile or of another
        kind, or has numbers that are not finite; names the file.
    """
    path = pathlib.Path(path).expanduser().absolute()
    state, texts = _read_folder(path) if path.is_dir() else _read_file(path)
    beside = path if path.is_dir() else path.parent
    for name in TEXTS if path.is_dir() or path.name in WHOLE else ():
        if (beside / name).exists():
            texts[name] = _read_json(beside / name)
    return Found(path, state, texts)


def _read_folder(folder: pathlib.Path) -> tuple[State, dict[str, Any]]:
    there = {file.name for file in folder.iterdir()}
    for whole, index in zip(WHOLE, INDEX, strict=True):
        if whole in there:
            return _read_file(folder / whole)
        if index in there:
            return _read_parts(folder / index), {}
    if halves := [name for name in HALVES if name in there]:
        state = {}
        for half in halves:
            found, _ = _read_file(folder / half)
            prefix = half.removesuffix("pkl")
            state |= {prefix + name: array for name, array in found.items()}
        return state, {}
    single = sorted(name for name in there if name.endswith(SINGLE))
    if len(single) == 1:
        return _read_file(folder / single[0])
    raise ValueError(
        f"{folder} has {', '.join(single) or 'no weights'}; name one file, or a folder "
        f"with {', '.join(WHOLE + INDEX + HALVES)} or just one of {', '.join(SINGLE)}"
    )


def _read_parts(index: pathlib.Path) -> State:
    """What an index lists, from the files that it says."""
    part_of = _read_json(index).get("weight_map")
    if not isinstance(part_of, dict) or not part_of:
        raise ValueError(f"{index} has no weight_map; {AGAIN}")
    state: State = {}
    for part in sorted(set(map(str, part_of.values()))):
        if not re.fullmatch(r"\w[\w.-]*", part):
            raise ValueError(f"{index} names {part!r}, which is no file beside it")
        found, _ = _read_file(index.parent / part)
        names = {name for name in part_of if part_of[name] == part}
        if wrong := sorted(names ^ found.keys()):
            raise ValueError(
                f"{index.parent / part} and {index.name} do not agree on "
                f"{', '.join(wrong[:5])} ({len(wrong)} in all); download both again"
            )
        state |= found
    return state


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes(), object_pairs_hook=_without_repeats)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}; {AGAIN}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} has no JSON object; {AGAIN}")
    return found


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has {twice!r} twice")
    return found


def _read_file(path: pathlib.Path) -> tuple[State, dict[str, Any]]:
    """Arrays, and metadata and notes where there are any."""
    try:
        state, texts = _read_kind(path)
        _check_values(state)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}; {AGAIN}") from error
    except Exception as error:  # a damaged file raises whatever there is
        what = f"it is damaged ({type(error).__name__}: {error})"
        raise ValueError(f"{path} cannot be read: {what}; {AGAIN}") from error
    return state, {name: text for name, text in texts.items() if text}


def _check_values(state: State) -> None:
    if not state:
        raise ValueError("it has no arrays")
    for name, array in state.items():
        if array.dtype.kind not in "biu" and not np.isfinite(array).all():
            raise ValueError(f"{name!r} has numbers that are not finite")


def _read_kind(path: pathlib.Path) -> tuple[State, dict[str, Any]]:
    with open(path, "rb") as file:
        start = file.read(512)
    # First, for the length that it begins with may look like any other kind.
    if re.match(SAFETENSORS, start):
        return _read_safetensors(path)
    for pattern, what in OTHER_KINDS.items():
        if re.match(pattern, start, re.IGNORECASE):
            raise ValueError(f"it {what}")
    if start[:2] == b"PK":
        with zipfile.ZipFile(path) as entries:
            is_npz = any(name.endswith(".npy") for name in entries.namelist())
        return (_read_npz(path), {}) if is_npz else _read_torch(path)
    if start[:1] == b"\x80":  # of a pickle
        return _read_torch(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)  # tells what is wrong
    raise ValueError("it is none of .safetensors, .npz and what torch.save writes")


def _read_safetensors(path: pathlib.Path) -> tuple[State, dict[str, Any]]:
    state, metadata = safetensors_file.read(path)
    return state, {"metadata": metadata}


def _read_torch(path: pathlib.Path) -> tuple[State, dict[str, Any]]:
    state, notes = torch_file.read(path)
    return state, {"notes": notes}


def _read_npz(path: pathlib.Path) -> State:
    with zipfile.ZipFile(path) as entries:
        archive.check(entries, path.stat().st_size)
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def write(
    path: str | pathlib.Path,
    state: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] = {},
) -> None:
    """Writes arrays by their names.

    Args:
      path: .safetensors, .npz, or with PyTorch one of TORCH: {"model": state}.
      metadata: for .safetensors only.

    Raises:
      ValueError: another suffix, or the format cannot hold what it should.
    """
    path = pathlib.Path(path).expanduser()
    if path.suffix not in SINGLE:
        raise ValueError(f"{path} must end in one of {', '.join(SINGLE)}")
    if metadata and path.suffix != ".safetensors":
        raise ValueError(f"{path} cannot hold metadata; end it in .safetensors")
    state = {name: np.asarray(array, order="C") for name, array in state.items()}
    for name, array in state.items():
        if not _can_hold(path.suffix, array.dtype):
            raise ValueError(f"{path} cannot hold {name!r} of {array.dtype}")
    if path.suffix == ".safetensors":
        safetensors_file.write(path, state, metadata)
    elif path.suffix == ".npz":
        _write_npz(path, state)
    else:
        _write_torch(path, state)


def _can_hold(suffix: str, dtype: np.dtype) -> bool:
    if suffix == ".safetensors":
        return dtype in safetensors_file.DTYPES.values()
    return dtype.kind in "biufc" or (suffix in TORCH and dtype == ml_dtypes.bfloat16)


def _write_npz(path: pathlib.Path, state: State) -> None:
    """As numpy.savez does, which cannot write every name."""
    with zipfile.ZipFile(path, "w") as entries:
        for name, array in state.items():
            with entries.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _write_torch(path: pathlib.Path, state: State) -> None:
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"{path} is written by PyTorch: pip install 'beit_jax[torch]', or end it "
            "in .safetensors or .npz"
        ) from error

    def tensor(array: np.ndarray) -> torch.Tensor:
        if array.dtype == ml_dtypes.bfloat16:
            return tensor(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(np.require(array, requirements="W"))

    torch.save({"model": {name: tensor(x) for name, x in state.items()}}, path)
