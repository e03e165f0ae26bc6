"""Unpickles what torch.save pickled; no code of a pickle's own choice runs.

A pickle calls what it names with what it says. Here it may name what weights need and
nothing else, and each such name stands for something inert. Tensors come out as claims
about storages, which nobody has checked yet.

After torch/serialization.py and torch/_utils.py.
"""

import pickle
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

MOST_TUPLES = 50_000  # in a pickle; to hash nested ones takes C's stack

_NATIVE = ["float64", "float32", "float16", "complex64", "complex128", "bool"]
_NATIVE += ["int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"]
_SMALL = ["bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2"]
_SMALL += ["float8_e5m2fnuz", "float8_e8m0fnu"]
DTYPES = {name: np.dtype(name) for name in _NATIVE}  # by torch's names
DTYPES |= {name: np.dtype(getattr(ml_dtypes, name)) for name in _SMALL}
STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}


class Storage(NamedTuple):
    """Numbers that lie elsewhere in the file."""

    dtype: str  # one of DTYPES
    key: str
    count: int


class Tensor(NamedTuple):
    """A view of a storage. Of all but the storage the pickle may say anything."""

    storage: Storage
    dtype: Any
    offset: Any
    size: Any
    stride: Any


# The opcode BUILD sets attributes of whatever a pickle got hold of, classes included,
# unless that has a method __setstate__. So each of these has one, or is immutable.


class Inert:
    """Stands for an object of any class: keeps its state and does nothing."""

    __slots__ = ("state",)

    def __new__(cls, *args: Any, **kwargs: Any):
        made = super().__new__(cls)
        made.state = {}
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Collection(Inert):
    """Stands for a collection that is no OrderedDict; drops what is put into it."""

    __slots__ = ()

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass


class Dict(dict):
    """Stands for OrderedDict, made empty; drops attributes, as state dicts have."""

    __slots__ = ()

    def __init__(self):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class Call:
    """Stands for a function."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("its pickle changes a function")


def _tensor(storage, offset, size, stride, grad=False, hooks=None, bits=None):
    return _typed_tensor(storage, offset, size, stride, grad, hooks, None, bits)


def _typed_tensor(storage, offset, size, stride, grad, hooks, dtype, bits=None):
    if not isinstance(storage, Storage) or bits:
        raise ValueError("it has a tensor that is conjugated or has no storage")
    return Tensor(storage, dtype or storage.dtype, offset, size, stride)


_TENSOR = Call(_tensor)
_FIRST = Call(lambda first=(), *rest: first)  # copies nothing, however long that is
ALLOWED = {
    "torch._utils._rebuild_tensor": _TENSOR,
    "torch._utils._rebuild_tensor_v2": _TENSOR,
    "torch._utils._rebuild_tensor_v3": Call(_typed_tensor),
    "torch._utils._rebuild_parameter": _FIRST,
    "torch._utils._rebuild_parameter_with_state": _FIRST,
    "torch.nn.parameter.Parameter": _FIRST,
    "torch.Size": _FIRST,
    "collections.OrderedDict": Dict,
    "builtins.set": _FIRST,
    "__builtin__.set": _FIRST,
    # What lies beside the weights, and nobody looks at: settings, optimizers' states.
    "torch.device": Inert,
    "collections.Counter": Collection,
    "collections.defaultdict": Collection,
    "collections.deque": Collection,
    "argparse.Namespace": Inert,
    "functools.partial": Inert,
    "pathlib.Path": Inert,
    "pathlib.PosixPath": Inert,
    "pathlib.WindowsPath": Inert,
    "numpy.dtype": Inert,
    "numpy.ndarray": Inert,
    "numpy.core.multiarray.scalar": Inert,
    "numpy.core.multiarray._reconstruct": Inert,
    "numpy._core.multiarray.scalar": Inert,
    "numpy._core.multiarray._reconstruct": Inert,
    "_codecs.encode": Inert,
}
MODULES = ("torch.nn.modules.", "dall_e.")  # every class in these is Inert


class _Unpickler(pickle.Unpickler):
    """Finds the stand-ins and nothing else; notes the storages."""

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.cuda", "torch.storage") and name in STORAGES:
            return name
        if module == "torch" and name in DTYPES:
            return name
        if f"{module}.".startswith(MODULES):
            return Inert
        if f"{module}.{name}" in ALLOWED:
            return ALLOWED[f"{module}.{name}"]
        raise ValueError(
            f"its pickle names {module}.{name}, which might run code; weights need "
            "only tensors, OrderedDict, argparse.Namespace, pathlib and numpy, and "
            "the classes of torch.nn.modules and dall_e"
        )

    def persistent_load(self, pid: Any) -> Any:
        match pid:
            case ("module", found, *_):  # a class, with the text of its source
                return found
            case ("storage", str(name), str(key), _, int(count), *view) if (
                name in STORAGES and not any(view)
            ):
                made = Storage(STORAGES[name], key, count)
                if self.storages.setdefault(key, made) != made:
                    raise ValueError(f"its pickle says two things of storage {key!r}")
                return made
        raise ValueError("its pickle has a storage of an unknown kind")


def load(file: BinaryIO) -> tuple[Any, dict[str, Storage]]:
    """The next pickle of a file, and by key the storages that it names.

    Args:
      file: one without a method `peek`, through which more would be read than that.

    Raises:
      ValueError: the pickle names what it may not.
      Exception: any at all, when it is damaged.
    """
    _check_opcodes(file)
    unpickler = _Unpickler(file)
    return unpickler.load(), unpickler.storages


def _check_opcodes(file: BinaryIO) -> None:
    """Raises ValueError for what exhausts memory or stack; carries nothing out."""
    start, tuples = file.tell(), 0
    for count, (opcode, arg, _) in enumerate(pickletools.genops(file)):
        tuples += "TUPLE" in opcode.name
        # The memo is an array, and grows to whatever place is put to.
        if tuples > MOST_TUPLES or ("PUT" in opcode.name and arg > count):
            raise ValueError("its pickle is damaged or made to exhaust memory")
    file.seek(start)
