"""Files of torch.save that would do harm are refused, and do none."""

import os
import pickle

import pytest

from beit_jax.checkpoints.foreign import torch_file, torch_pickle
from tests.checkpoints.handmade import (
    DATA,
    STATE,
    archive,
    assert_refused,
    call,
    mapping,
    name,
    new,
    pickled,
    read,
    tensor,
    value,
)


class Runs:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def nested(command: str) -> bytes:
    return pickle.dumps(Runs(command), 2)


STATEFUL = "torch._utils._rebuild_tensor_v2"
HOSTILE = {  # the pickle's body for a shell command -> what the error says
    "os.system": (
        lambda command: nested(command)[2:-1],
        r"names (posix|nt).system, which might run code",
    ),
    "os.system within the state dict": (
        lambda command: mapping({"w": tensor(), "b": nested(command)[2:-1]}),
        r"names (posix|nt).system, which",
    ),
    "by another protocol": (
        lambda command: pickle.dumps(Runs(command), 4)[11:-1],
        r"names (posix|nt).system, which",
    ),
    "by the opcode INST": (
        lambda command: b"(" + value(command) + b"ios\nsystem\n",
        "names os.system, which",
    ),
    "eval": (
        lambda command: call(
            name("builtins.eval"), value(f"__import__('os').system({command!r})")
        ),
        "names builtins.eval, which",
    ),
    "exec of Python 2's name": (
        lambda command: call(
            name("__builtin__.exec"), value(f"import os; os.system({command!r})")
        ),
        "names __builtin__.exec, which",
    ),
    "getattr": (
        lambda command: call(name("builtins.getattr"), name("torch.Size"), value("x")),
        "names builtins.getattr, which",
    ),
    "a pickle within the pickle": (
        lambda command: call(
            name("torch.storage._load_from_bytes"), value(nested(command))
        ),
        "names torch.storage._load_from_bytes, which",
    ),
    "torch.load itself": (
        lambda command: call(name("torch.load"), value("other.pth")),
        "names torch.load, which",
    ),
    "a function for a class": (
        lambda command: call(
            name("torch._tensor._rebuild_from_type_v2"), name("os.system")
        ),
        "names torch._tensor._rebuild_from_type_v2, which",
    ),
    "a dotted way to a function": (
        lambda command: call(
            value("collections") + value("OrderedDict.os.system") + b"\x93"
        ),
        "names collections.OrderedDict.os.system, which",
    ),
    "a subclass of an allowed one": (
        lambda command: call(name("argparse.ArgumentParser")),
        "names argparse.ArgumentParser, which",
    ),
    "the module of modules": (
        lambda command: call(name("torch.nn.modules_.x")),
        "names torch.nn.modules_.x, which",
    ),
    "a function that is changed": (
        lambda command: (
            name(STATEFUL) + value((None, {"_function": 1, "__call__": 2})) + b"b"
        ),
        "changes a function",
    ),
    "a class that is changed": (
        lambda command: (
            name("argparse.Namespace") + value((None, {"__setstate__": 1})) + b"b"
        ),
        "is damaged .TypeError",
    ),
    "a dict that is changed": (
        lambda command: (
            name("collections.OrderedDict") + value((None, {"items": 1})) + b"b"
        ),
        "is damaged .TypeError",
    ),
    "an object of another class by its state": (
        lambda command: new("argparse.Namespace", value({"__class__": dict})),
        "names __builtin__.dict, which",
    ),
    "an object without the parts of a module": (
        lambda command: new("argparse.Namespace", value({"__dict__": {"w": 1}})),
        "an object that is no nn.Module",
    ),
    "objects for storages": (
        lambda command: (
            b"("
            + b"".join(map(value, ["storage", "os", "0", "cpu", 6]))
            + b"tQ"
            + value(0)
            + b"\x86"
        ),
        "a storage of an unknown kind",
    ),
    "a tensor without a storage": (
        lambda command: call(
            name(STATEFUL), *map(value, ["storage", 0, (2,), (1,), False, None])
        ),
        "a tensor that is conjugated or has no storage",
    ),
}


@pytest.mark.parametrize("trick", HOSTILE)
def test_no_code_of_a_pickle_runs(write, tmp_path, sentinel, trick):
    body, words = HOSTILE[trick]
    path = write(tmp_path / "a.pth", body(f"touch {sentinel}"), DATA)
    assert_refused(path, words)
    # What was changed, if anything, would be so for the next file too.
    assert read(write(tmp_path / "b.pth", STATE, DATA)).keys() == {"w", "b"}


def test_the_tricks_would_work_elsewhere(tmp_path):
    path = tmp_path / "made"
    for trick in ("os.system", "by another protocol", "by the opcode INST", "eval"):
        body, _ = HOSTILE[trick]
        pickle.loads(pickled(body(f"touch {path}")))
        assert path.exists(), trick
        path.unlink()


@pytest.mark.parametrize("protocol", range(1, 6))
def test_a_plain_pickle_does_not_run_either(tmp_path, sentinel, protocol):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(Runs(f"touch {sentinel}"), protocol))
    words = "names (posix|nt).system" if protocol > 1 else "none of .safetensors"
    assert_refused(path, words)


@pytest.mark.parametrize("part", range(5))
def test_no_code_of_any_part_of_a_row_runs(tmp_path, sentinel, part):
    parts = [torch_file.MAGIC, torch_file.PROTOCOL, {}, {}, []]
    parts[part] = Runs(f"touch {sentinel}")
    path = tmp_path / "a.pth"
    path.write_bytes(b"".join(pickle.dumps(each, 2) for each in parts))
    assert_refused(path, "names (posix|nt).system")


OUTSIDE = {
    "behind the storage": {"offset": 1},
    "longer than the storage": {"size": (3, 3)},
    "of a longer stride": {"stride": (4, 1)},
    "often the same number": {"size": (10**12,), "stride": (0,)},
    "of giant size": {"size": (2**40, 2**40), "stride": (0, 0)},
    "of negative stride": {"stride": (-3, 1), "offset": 3},
    "of negative size": {"size": (-2, -3)},
    "of negative offset": {"offset": -1},
    "of fractions": {"size": (2.0, 3)},
    "of texts": {"size": ("2", 3)},
    "of fewer strides": {"stride": (1,)},
    "of many axes": {"size": (1,) * 65, "stride": (1,) * 65},
    "of a storage that is shorter": {"count": 7},
    "of a storage of other numbers": {"kind": "torch.LongStorage", "count": 6},
    "of a negative storage": {"count": -6},
}


@pytest.mark.parametrize("view", OUTSIDE)
def test_a_tensor_outside_of_its_storage_is_refused(tmp_path, view):
    path = archive(tmp_path / "a", mapping({"w": tensor(**OUTSIDE[view])}), DATA)
    assert_refused(path, "of 'w', ")


def test_a_tensor_without_its_storage_is_refused(tmp_path):
    path = archive(tmp_path / "a", mapping({"w": tensor("../0")}), DATA)
    assert_refused(path, "storage '../0' has 0 bytes, not 6 numbers")
    twice = {"w": tensor(), "v": tensor(count=5)}
    path = archive(tmp_path / "b", mapping(twice), DATA)
    assert_refused(path, "two things of storage '0'")


def test_what_exhausts_memory_or_stack_is_refused(write, tmp_path):
    deep = b"}" + b")" + b"\x85" * (torch_pickle.MOST_TUPLES + 1) + b"Ns"
    far = b"]r\x00\x00\x00\x01"
    endless = b"\x8e" + (2**62).to_bytes(8, "little")
    for number, body in enumerate([deep, far, b"]p16777216\n"]):
        assert_refused(write(tmp_path / str(number), body, DATA), "exhaust memory")
    assert_refused(write(tmp_path / "endless", endless, DATA), "cannot be read")


def test_modules_without_end_are_refused(tmp_path):
    cls = "torch.nn.modules.container.Sequential"
    parts = {"_parameters": value({}), "_buffers": value({})}
    parts["_modules"] = mapping({"0": b"h\x04"})
    itself = name(cls) + b")\x81q\x04" + mapping(parts) + b"b"
    assert_refused(archive(tmp_path / "a", itself, DATA), "modules have no end")


def test_lists_in_lists_are_no_state_dict(tmp_path):
    deep = b"]" * 100_000 + b"a" * 99_999
    assert_refused(archive(tmp_path / "a", deep, DATA), "no state dict, but a list")
    one = mapping({"w": b"]" * 100_000 + b"a" * 99_999})
    assert_refused(archive(tmp_path / "b", one, DATA), "a list by a name of str")
