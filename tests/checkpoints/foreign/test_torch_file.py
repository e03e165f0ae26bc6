"""Files of torch.save: what they hold is read; what is damaged is told."""

import pickle
import sys
import zipfile

import numpy as np
import pytest

from beit_jax.checkpoints.foreign import files, torch_file, torch_pickle
from tests.checkpoints.handmade import (
    DATA,
    SIX,
    STATE,
    archive,
    assert_refused,
    call,
    mapping,
    module,
    name,
    new,
    pickled,
    read,
    storage,
    tensor,
    value,
)


def test_tensors_are_views_of_their_storage(write, tmp_path):
    state = read(write(tmp_path / "a.pth", STATE, DATA))
    np.testing.assert_array_equal(state["w"], SIX.reshape(2, 3))
    np.testing.assert_array_equal(state["b"], [1, 4])
    assert state["b"].base is not None
    assert not state["w"].flags.writeable and state["w"].dtype == np.float32


@pytest.mark.parametrize(
    "size, stride, offset, want",
    [
        ((3, 2), (1, 3), 0, SIX.reshape(2, 3).T),
        ((), (), 5, np.float32(5)),
        ((0, 3), (3, 1), 6, np.empty((0, 3))),
        ((1, 6), (0, 1), 0, SIX[None]),
        ((2, 2), (0, 1), 4, [[4, 5], [4, 5]]),
    ],
)
def test_any_size_and_stride_within_the_storage(
    write, tmp_path, size, stride, offset, want
):
    body = mapping({"w": tensor(size=size, stride=stride, offset=offset)})
    np.testing.assert_array_equal(read(write(tmp_path / "a", body, DATA))["w"], want)


def test_types(tmp_path):
    kinds = {"bool": "Bool", "bfloat16": "BFloat16", "int64": "Long", "uint8": "Byte"}
    entries, data = {}, {}
    for dtype, kind in kinds.items():
        of = {"kind": f"torch.{kind}Storage", "count": 2}
        entries[dtype] = tensor(dtype, (2,), (1,), **of)
        data[dtype] = np.ones(2, torch_pickle.DTYPES[dtype]).tobytes()
    v3 = [storage("u", 8, "torch.storage.UntypedStorage"), value(0), value((4,))]
    v3 += [value((1,)), value(False), value({}), name("torch.uint16")]
    entries["uint16"] = call(name("torch._utils._rebuild_tensor_v3"), *v3)
    data["u"] = np.ones(4, np.uint16).tobytes()
    state = read(archive(tmp_path / "a.pt", mapping(entries), data))
    assert {key: array.dtype for key, array in state.items()} == {
        key: torch_pickle.DTYPES[key] for key in entries
    }
    assert all((array == 1).all() for array in state.values())


@pytest.mark.parametrize("kind, dtype", [("Float", "f4"), ("BFloat16", "bfloat16")])
def test_the_other_byte_order(tmp_path, kind, dtype):
    dtype = torch_pickle.DTYPES.get(dtype, np.dtype(np.float32))
    other = "big" if sys.byteorder == "little" else "little"
    data = {"0": SIX.astype(dtype).byteswap().tobytes()}
    body = mapping({"w": tensor(kind=f"torch.{kind}Storage")})
    path = archive(tmp_path / "a.pt", body, data, {"archive/byteorder": other.encode()})
    np.testing.assert_array_equal(read(path)["w"], SIX.reshape(2, 3).astype(dtype))


@pytest.mark.parametrize("wrapper", torch_file.WRAPPED)
def test_the_state_dict_is_found_beside_other_things(write, tmp_path, wrapper):
    settings = mapping({"lr": value(0.1), "to": new("pathlib.PosixPath", value({}))})
    scalar = call(name("numpy.core.multiarray.scalar"), name("numpy.dtype"), value("x"))
    body = {"epoch": value(3), "args": new("argparse.Namespace", settings)}
    body |= {wrapper: STATE, "optimizer": mapping({"step": scalar})}
    assert read(write(tmp_path / "a.pth", mapping(body), DATA)).keys() == {"w", "b"}


BOTH = {"model": STATE, "model_ema": mapping({"average": tensor()})}


def test_which_weights_are_taken_is_told(write, tmp_path):
    found = files.read(write(tmp_path / "a.pth", mapping(BOTH), DATA))
    assert found.state.keys() == {"w", "b"}
    (note,) = found.texts["notes"]
    assert "those of 'model'; 'model_ema', which it has too, is left behind" in note
    alone = mapping({"model_ema": STATE, "epoch": value(1)})
    found = files.read(write(tmp_path / "b.pth", alone, DATA))
    assert found.state.keys() == {"w", "b"}
    assert "of 'model_ema', a running average" in found.texts["notes"][0]
    only = mapping({"model": STATE, "model_ema": value({}), "ema": value(0.9)})
    assert files.read(write(tmp_path / "c.pth", only, DATA)).texts == {}


def test_settings_are_no_weights(write, tmp_path):
    """Which some call their model, and have the state dict beside."""
    body = {
        "model": value({"dim": 768}),
        "module": new("argparse.Namespace", value({})),
    }
    path = write(tmp_path / "a.pth", mapping(body | {"state_dict": STATE}), DATA)
    assert files.read(path).state.keys() == {"w", "b"}
    assert files.read(path).texts == {}


def test_a_wrapper_may_lie_in_a_wrapper(write, tmp_path):
    body = mapping({"model": mapping({"state_dict": STATE, "step": value(1)})})
    assert read(write(tmp_path / "a.pth", body, DATA)).keys() == {"w", "b"}


def test_wrappers_without_end_are_refused(tmp_path):
    itself = b"}q\x02(" + value("model") + b"h\x02u"
    assert_refused(archive(tmp_path / "a", itself, DATA), "a dict by a name of str")


def test_collections_beside_the_weights_are_harmless(write, tmp_path):
    """Of learning rates and states of optimizers, say."""
    count = call(name("collections.Counter"), value({30: 1}))
    items = b"(" + value("a") + value(1) + b"u"
    kept = call(name("collections.defaultdict"), name("collections.OrderedDict"))
    queue = call(name("collections.deque"), value(()), value(3))
    beside = {"count": count, "kept": kept + items, "queue": queue + b"(K\x01K\x02e"}
    body = mapping({"model": STATE, **beside})
    assert read(write(tmp_path / "a.pth", body, DATA)).keys() == {"w", "b"}


def test_attributes_of_a_state_dict_are_dropped(tmp_path):
    ordered = call(name("collections.OrderedDict"))
    body = ordered + b"(" + value("w") + tensor() + b"u"
    body += mapping({"_metadata": value({"": {"version": 1}})}) + b"b"
    assert read(archive(tmp_path / "a", body, DATA)).keys() == {"w"}


def test_a_module_gives_its_state_dict(write, tmp_path):
    conv = module("dall_e.utils.Conv2d", {"w": tensor(), "b": value(None)})
    norm = module(
        "torch.nn.modules.batchnorm.BatchNorm2d",
        _buffers=mapping({"mean": tensor(), "passing": tensor()}),
        _non_persistent_buffers_set=value({"passing"}),
    )
    inner = {"1": conv, "2": norm, "none": value(None)}
    inner = module("torch.nn.modules.container.Sequential", modules=inner)
    # The older format has a class with the text of its source.
    source = [value("module"), name("dall_e.encoder.Encoder"), value("file")]
    whole = b"(" + b"".join(source) + value("text") + b"tQ)\x81"
    whole += mapping(
        {
            "_parameters": mapping({"w": tensor()}),
            "_buffers": value({}),
            "_modules": mapping({"blocks": inner}),
        }
    )
    state = read(write(tmp_path / "encoder.pkl", whole + b"b", DATA))
    assert list(state) == ["w", "blocks.1.w", "blocks.2.mean"]


def damaged(content: bytes):
    """Copies that are cut off, or have bits flipped, all along."""
    for at in range(0, len(content), 11):
        yield content[:at]
        yield content[:at] + bytes([content[at] ^ 0x11]) + content[at + 1 :]


def test_damage_anywhere_is_told_or_harmless(write, tmp_path):
    """Dates of archives matter not; rows have no checksums of their numbers."""
    path = write(tmp_path / "a.pth", STATE, DATA)
    told = 0
    for content in damaged(path.read_bytes()):
        path.write_bytes(content)
        try:
            state = files.read(path).state
        except ValueError as error:
            assert str(error).startswith(str(path))
            told += 1
        else:
            if write is archive:
                np.testing.assert_array_equal(state["w"], SIX.reshape(2, 3))
                np.testing.assert_array_equal(state["b"], [1, 4])
    assert told > 50


ENTRIES = ["/etc/x", "../../x", "archive/../../x", "C:/x", "a\\..\\x"]


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_archive_whose_entries_lead_out_is_refused(tmp_path, entry):
    path = archive(tmp_path / "a.pth", STATE, DATA, {entry: b"x"})
    assert_refused(path, "leads out of the archive")
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    bomb = {"archive/data/1": bytes(10**7)}
    packed = archive(tmp_path / "a", STATE, DATA, bomb, zipfile.ZIP_DEFLATED)
    assert packed.stat().st_size < 10**5
    assert_refused(packed, "'archive/data.pkl' is compressed")


def test_one_flipped_bit_in_a_storage_is_found(tmp_path):
    path = archive(tmp_path / "a", STATE, DATA)
    content = bytearray(path.read_bytes())
    content[content.index(DATA["0"]) + 5] ^= 1
    path.write_bytes(content)
    assert_refused(path, "'archive/data/0' is damaged .wrong checksum")


def test_entries_of_the_same_name_are_refused(tmp_path):
    path = archive(tmp_path / "a", STATE, DATA)
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning):
        file.writestr("archive/data/0", bytes(24))
    assert_refused(path, "several entries of the same name")


def test_archives_of_other_kinds_are_told(tmp_path):
    script = {"archive/constants.pkl": pickled(value(()))}
    path = archive(tmp_path / "a.pt", STATE, DATA, script)
    assert_refused(path, "a program of TorchScript")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
        file.writestr("cat.jpg", b"x")
    assert_refused(tmp_path / "b.zip", "zip archive of another kind")


@pytest.mark.parametrize(
    "body, words",
    [
        (value([1, 2]), "no state dict, but a list"),
        (mapping({"w": value(3)}), "a int by a name of str where"),
        (mapping({"encoder": STATE}), "a dict by a name of str where .* may lie in"),
        (b"}(" + value(1) + tensor() + b"u", "a Tensor by a name of int"),
        (mapping({}), "no arrays"),
    ],
)
def test_what_is_no_state_dict_is_told(write, tmp_path, body, words):
    data = DATA if tensor() in body else {}
    assert_refused(write(tmp_path / "a", body, data), words)


def test_pickles_of_others_are_told(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"w": [1.0]}, 4))
    assert_refused(path, "a pickle, but none of torch.save")
