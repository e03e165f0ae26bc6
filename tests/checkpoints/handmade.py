"""Files as torch.save writes them, put together opcode by opcode, without torch."""

import pathlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from beit_jax.checkpoints.foreign import files

MAGIC = 0x1950A86A20F9469CFC6C


def pickled(body: bytes) -> bytes:
    """A whole pickle of what `body` leaves on the stack."""
    return b"\x80\x02" + body + b"."


def value(x: Any) -> bytes:
    """Plain data."""
    return pickle.dumps(x, 2)[2:-1]


def name(dotted: str) -> bytes:
    """What a dotted name stands for."""
    module, _, attribute = dotted.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def call(function: bytes, *args: bytes) -> bytes:
    return function + b"(" + b"".join(args) + b"tR"


def new(cls: str, state: bytes) -> bytes:
    """An object of a class, made without a call, and its state."""
    return name(cls) + b")\x81" + state + b"b"


def mapping(entries: Mapping[str, bytes]) -> bytes:
    items = b"".join(value(key) + body for key, body in entries.items())
    return b"}(" + items + b"u"


def module(
    cls: str,
    parameters: Mapping[str, bytes] = {},
    modules: Mapping[str, bytes] = {},
    **state: bytes,
) -> bytes:
    """An nn.Module."""
    state = {"_buffers": b"}", **state}
    state |= {"_parameters": mapping(parameters), "_modules": mapping(modules)}
    return new(cls, mapping(state))


def storage(key: str, count: int, kind: str = "torch.FloatStorage") -> bytes:
    about = [value("storage"), name(kind), value(key), value("cpu"), value(count)]
    return b"(" + b"".join(about) + b"tQ"


def tensor(
    key: str = "0", size: Any = (2, 3), stride: Any = (3, 1), offset: Any = 0, **of: Any
) -> bytes:
    """A tensor in the storage "0" of six float32 that `archive` and `row` write."""
    view = [storage(key, **{"count": 6, **of}), value(offset), value(size)]
    hooks = call(name("collections.OrderedDict"))
    view += [value(stride), value(False), hooks]
    return call(name("torch._utils._rebuild_tensor_v2"), *view)


def archive(
    path: pathlib.Path,
    body: bytes,
    data: Mapping[str, bytes],
    others: Mapping[str, bytes] = {},
    compression: int = zipfile.ZIP_STORED,
) -> pathlib.Path:
    """The format of today.

    Args:
      data: key of a storage -> its bytes.
      others: entry -> its bytes.
    """
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", pickled(body))
        for key, numbers in data.items():
            file.writestr(f"archive/data/{key}", numbers)
        for entry, content in others.items():
            file.writestr(entry, content)
    return path


def row(
    path: pathlib.Path, body: bytes, data: Mapping[str, bytes], itemsize: int = 4
) -> pathlib.Path:
    """The format before that; all storages have numbers of `itemsize` bytes."""
    system = {"protocol_version": 1001, "little_endian": True}
    body = body.replace(b"tQ", b"NtQ")  # here one thing more is said of storages
    parts = [value(MAGIC), value(1001), value(system), body, value(list(data))]
    content = b"".join(map(pickled, parts))
    for numbers in data.values():
        content += (len(numbers) // itemsize).to_bytes(8, "little") + numbers
    path.write_bytes(content)
    return path


SIX = np.arange(6, dtype=np.float32)
DATA = {"0": SIX.tobytes()}
STATE = mapping({"w": tensor(), "b": tensor(size=(2,), stride=(3,), offset=1)})


def read(path):
    return files.read(path).state


def assert_refused(path, words):
    with pytest.raises(ValueError, match=f"(?s){re.escape(str(path))}.*{words}"):
        files.read(path)
