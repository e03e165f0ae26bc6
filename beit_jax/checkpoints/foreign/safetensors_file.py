"""Reads and writes .safetensors, with a checksum, which the format has not."""

import math
import pathlib
from collections.abc import Mapping

import google_crc32c
import ml_dtypes
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from beit_jax.checkpoints.foreign.archive import map_file

CHECKSUM = "beit_jax.crc32c"  # of the metadata, which callers do not see

# Of the format; it also has numbers of less than a byte.
DTYPES = {
    **{f"F{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    **{f"I{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    "BOOL": np.dtype(bool),
    "C64": np.dtype("complex64"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
}


def read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read-only views of the mapped file, and the metadata.

    The library checks the header; that it has the arrays lie one after another, without
    gaps, is used here. It would copy them, and knows no float8 in numpy.

    Raises:
      ValueError, safetensors.SafetensorError: what is wrong; does not name the file.
    """
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        about = [(name, file.get_slice(name)) for name in file.offset_keys()]
    data = np.frombuffer(map_file(path), np.uint8)
    start, state = 8 + int.from_bytes(data[:8].tobytes(), "little"), {}
    for name, piece in about:
        shape, kind = piece.get_shape(), piece.get_dtype()
        if kind not in DTYPES:
            raise ValueError(f"{name!r} is of type {kind}, which numpy has not")
        end = start + math.prod(shape) * DTYPES[kind].itemsize
        state[name] = data[start:end].view(DTYPES[kind]).reshape(shape)
        start = end
    checksum = metadata.pop(CHECKSUM, None)
    if checksum and checksum != _checksum(state, metadata):
        raise ValueError("it is damaged (wrong checksum)")
    return state, metadata


def write(
    path: pathlib.Path, state: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes contiguous arrays of DTYPES."""
    path.touch()
    mode = path.stat().st_mode  # as the user's umask says; the library's is private
    save_file(state, path, {**metadata, CHECKSUM: _checksum(state, metadata)})
    path.chmod(mode)


def _checksum(state: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """CRC-32C of metadata, names, types, shapes and numbers."""
    about = [(name, x.dtype.name, x.shape) for name, x in sorted(state.items())]
    crc = google_crc32c.value(repr((about, sorted(metadata.items()))).encode())
    for _, array in sorted(state.items()):
        crc = google_crc32c.extend(crc, array.reshape(-1).view(np.uint8))
    return f"{crc:08x}"
