"""Reads the weights in what torch.save wrote, without torch.

There are two formats: a zip archive with data.pkl and a file for each storage (since
torch 1.6), and before that a row of pickles, and then the storages. What is pickled is
a state dict, or has one, or is a whole nn.Module.

After torch/serialization.py.
"""

import io
import math
import mmap
import os
import pathlib
import sys
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from beit_jax.checkpoints.foreign import archive as archives
from beit_jax.checkpoints.foreign import wrappers
from beit_jax.checkpoints.foreign.torch_pickle import (
    DTYPES,
    Inert,
    Storage,
    Tensor,
    load,
)

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the older format
WRAPPED = (*wrappers.WEIGHTS, *wrappers.AVERAGES)
MOST_WRAPPED = 8  # one within another
MOST_MODULES = 10_000  # one that is shared counts as often as it is used
MOST_DIMS = 64  # numpy's


State = dict[str, np.ndarray]
Notes = tuple[str, ...]


def read(path: pathlib.Path) -> tuple[State, Notes]:
    """The state dict: names -> arrays as stored, read-only views of the mapped file.

    It is what is pickled, or what that has as one of WRAPPED; of which, is told in
    sentences where there was a choice.

    Raises:
      ValueError: what is wrong; does not name the file.
      OSError: the file cannot be read.
      Exception: any at all, when a pickle is damaged.
    """
    mapped = archives.map_file(path)
    if mapped[:2] != b"PK":
        return _read_row(mapped)
    with zipfile.ZipFile(path) as archive:
        return _read_archive(archive, mapped)


def _read_archive(archive: zipfile.ZipFile, mapped: mmap.mmap) -> tuple[State, Notes]:
    archives.check(archive, len(mapped))
    infos = {info.filename: info for info in archive.infolist()}
    roots = [name.rpartition("/")[0] for name in infos if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise ValueError("it is a zip archive of another kind, without a data.pkl")
    root = roots[0]
    if f"{root}/constants.pkl" in infos:
        raise ValueError("it is a program of TorchScript, not a file of weights")
    tree, storages = load(io.BytesIO(archive.read(f"{root}/data.pkl")))
    order = sys.byteorder
    if f"{root}/byteorder" in infos:
        order = archive.read(f"{root}/byteorder").decode()
    data = {
        key: archives.view(mapped, infos[name])
        for key in storages
        if (name := f"{root}/data/{key}") in infos
    }
    state, notes = _state_dict(tree)
    return _arrays(state, data, swap=order != sys.byteorder), notes


def _read_row(mapped: mmap.mmap) -> tuple[State, Notes]:
    """The older format: magic, protocol, system, object, keys, storages."""
    if load(mapped)[0] != MAGIC or load(mapped)[0] != PROTOCOL:
        raise ValueError("it is a pickle, but none of torch.save")
    load(mapped)  # its numbers are little-endian on every system
    tree, storages = load(mapped)
    (state, notes), data, (keys, _) = _state_dict(tree), {}, load(mapped)
    for key in keys:
        if type(key) is not str or key not in storages:
            raise ValueError("it has storages that belong to no tensor")
        itemsize = DTYPES[storages[key].dtype].itemsize
        size = int.from_bytes(mapped.read(8), "little") * itemsize
        if size > len(mapped) - mapped.tell():
            raise ValueError(f"it is cut off in storage {key!r}")
        data[key] = np.frombuffer(mapped, np.uint8, size, mapped.tell())
        mapped.seek(size, os.SEEK_CUR)
    return _arrays(state, data, swap=sys.byteorder != "little"), notes


def _state_dict(tree: Any) -> tuple[dict[str, Tensor], Notes]:
    """The state dict in what was pickled, and notes on which that is."""
    notes: Notes = ()
    for _ in range(MOST_WRAPPED):
        parts = tree if isinstance(tree, dict) else {}
        name, told = wrappers.taken([name for name, x in parts.items() if _holds(x)])
        if not name:
            break
        tree, notes = tree[name], (*notes, *told)
    if isinstance(tree, Inert):
        tree = _of_module(tree)
    if not isinstance(tree, dict):
        raise ValueError(f"it has no state dict, but a {type(tree).__name__}")
    for name, tensor in tree.items():
        if type(name) is not str or not isinstance(tensor, Tensor):
            raise ValueError(
                f"it has a {type(tensor).__name__} by a name of {type(name).__name__} "
                f"where a state dict has tensors; that may lie in {', '.join(WRAPPED)}"
            )
    return tree, notes


def _holds(part: Any) -> bool:
    """Whether it could be a state dict, or hold one: settings are none."""
    if isinstance(part, Inert):
        return isinstance(part.state, dict) and "_parameters" in part.state
    return isinstance(part, dict) and any(
        isinstance(x, Tensor | dict | Inert) for x in part.values()
    )


def _of_module(module: Inert) -> dict[str, Tensor]:
    """What state_dict() gives of an nn.Module."""
    state, waiting, count = {}, [("", module)], 0
    while waiting:
        prefix, here = waiting.pop()
        count += 1
        if count > MOST_MODULES:
            raise ValueError("its modules have no end")
        parts = {"_parameters", "_buffers", "_modules"}
        if not isinstance(here, Inert) or not parts <= here.state.keys():
            raise ValueError("it has an object that is no nn.Module")
        has = here.state
        passing = has.get("_non_persistent_buffers_set", ())
        buffers = {k: x for k, x in has["_buffers"].items() if k not in passing}
        own = {**has["_parameters"], **buffers}
        state |= {prefix + k: x for k, x in own.items() if x is not None}
        children = [(f"{prefix}{k}.", x) for k, x in has["_modules"].items()]
        waiting += reversed([child for child in children if child[1] is not None])
    return state


def _arrays(
    state: Mapping[str, Tensor], data: Mapping[str, np.ndarray], swap: bool
) -> State:
    """Views of the storages.

    Args:
      data: key of a storage -> its bytes.
      swap: these are in the order that is not this system's.
    """
    arrays = {}
    for name, tensor in state.items():
        try:
            arrays[name] = _array(tensor, _numbers(tensor.storage, data), swap)
        except ValueError as error:
            raise ValueError(f"of {name!r}, {error}") from error
    return arrays


def _numbers(storage: Storage, data: Mapping[str, np.ndarray]) -> np.ndarray:
    found = data.get(storage.key, np.empty(0, np.uint8))
    if storage.count * DTYPES[storage.dtype].itemsize != found.size:
        raise ValueError(
            f"storage {storage.key!r} has {found.size} bytes, not {storage.count} "
            f"numbers of {storage.dtype}"
        )
    return found


def _array(tensor: Tensor, data: np.ndarray, swap: bool) -> np.ndarray:
    """The tensor on its storage's bytes, if it lies within them."""
    _, dtype, offset, size, stride = tensor
    if type(dtype) is not str or dtype not in DTYPES:
        raise ValueError("the type is unknown")
    dtype = DTYPES[dtype]
    data = data.view(dtype).byteswap() if swap else data
    claims = (offset, *size, *stride)
    if not all(type(n) is int and 0 <= n < 2**63 for n in claims):
        raise ValueError("an offset, size or stride is none")
    if len(size) != len(stride) or len(size) > MOST_DIMS:
        raise ValueError(f"the size has {len(size)} axes, the stride {len(stride)}")
    count, have = math.prod(size), data.nbytes // dtype.itemsize
    last = offset + sum((n - 1) * k for n, k in zip(size, stride, strict=True))
    if count and (count > have or last >= have):
        raise ValueError(
            f"numbers lie outside of the storage, which has {have}: size {list(size)}, "
            f"stride {list(stride)} from {offset} on"
        )
    if not count:
        return np.empty(size, dtype)
    strides = [k * dtype.itemsize for k in stride]
    return np.ndarray(size, dtype, data, offset * dtype.itemsize, strides)
