"""Files and folders of weights: what is in them, and what is wrong with them."""

import json
import pathlib
import pickle
import re
import struct
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from beit_jax.checkpoints.foreign import files, safetensors_file
from tests.checkpoints import handmade

STATE = {
    "a/b.c": np.arange(6, dtype=np.float32).reshape(2, 3),
    "file": np.arange(3),
    "scalar": np.float32(3),
    "empty": np.zeros((0, 3), np.float16),
    "turned": np.arange(6.0).reshape(2, 3).T,
    "mask": np.array([True, False]),
}
SUFFIXES = (".safetensors", ".npz")
TORCH = handmade.mapping({"w": handmade.tensor()})
DATA = {"0": STATE["a/b.c"].tobytes()}


def assert_same(got, want):
    assert got.keys() == want.keys()
    for name, array in want.items():
        assert got[name].dtype == array.dtype and got[name].shape == array.shape
        np.testing.assert_array_equal(got[name], array)


def assert_refused(path, words, file=None):
    with pytest.raises(ValueError, match=f"^{re.escape(str(file or path))}.*{words}"):
        files.read(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read(tmp_path, suffix):
    files.write(tmp_path / f"a{suffix}", STATE)
    found = files.read(tmp_path / f"a{suffix}")
    assert found.path == tmp_path / f"a{suffix}" and found.texts == {}
    assert_same(found.state, STATE)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_suffix_does_not_matter_for_reading(tmp_path, suffix):
    files.write(tmp_path / f"a{suffix}", STATE)
    (tmp_path / f"a{suffix}").rename(tmp_path / "a.pth")
    assert_same(files.read(tmp_path / "a.pth").state, STATE)
    handmade.row(tmp_path / "b.safetensors", TORCH, DATA)
    assert_same(files.read(tmp_path / "b.safetensors").state, {"w": STATE["a/b.c"]})


@pytest.mark.parametrize("start", [b"PK", b"\x80", b"\x1f\x8b", b"\x89"])
def test_safetensors_may_begin_as_other_kinds_do(tmp_path, start):
    """With the length of their header."""
    header = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    length = int.from_bytes(start, "little")
    header = json.dumps(header).encode().ljust(length)
    path = tmp_path / "a.bin"
    path.write_bytes(struct.pack("<Q", length) + header + bytes(8))
    assert_same(files.read(path).state, {"w": np.zeros(2, np.float32)})


def test_safetensors_of_every_type(tmp_path):
    """Not complex128, float4 and the like, which the format or numpy has not."""
    kinds = safetensors_file.DTYPES.items()
    state = {kind: np.ones(3, dtype) for kind, dtype in kinds}
    files.write(tmp_path / "a.safetensors", state)
    assert_same(files.read(tmp_path / "a.safetensors").state, state)


def test_safetensors_are_not_copied(tmp_path):
    files.write(tmp_path / "a.safetensors", STATE)
    for array in files.read(tmp_path / "a.safetensors").state.values():
        assert not array.flags.owndata and not array.flags.writeable


def test_others_safetensors(tmp_path):
    """Without a checksum."""
    state = {"w": np.ones((2, 3), ml_dtypes.bfloat16)}
    save_file(state, tmp_path / "a.safetensors", {"format": "pt"})
    found = files.read(tmp_path / "a.safetensors")
    assert found.texts == {"metadata": {"format": "pt"}}
    assert_same(found.state, state)


def test_metadata_come_back_as_they_were(tmp_path):
    files.write(tmp_path / "a.safetensors", STATE, {"config": '{"ü": 1}'})
    found = files.read(tmp_path / "a.safetensors")
    assert found.texts == {"metadata": {"config": '{"ü": 1}'}}


@pytest.mark.parametrize("name", ["a.npz", "a.pth"])
def test_metadata_are_not_dropped(tmp_path, name):
    with pytest.raises(ValueError, match="a.* cannot hold metadata"):
        files.write(tmp_path / name, STATE, {"config": "x"})


@pytest.mark.parametrize(
    "name, array, words",
    [
        ("a.npz", np.ones(3, ml_dtypes.bfloat16), "a.npz cannot hold 'w' of bfloat16"),
        ("a.npz", np.array([{}]), "a.npz cannot hold 'w' of object"),
        ("a.safetensors", np.ones(3, complex), "a.safetensors cannot hold 'w' of comp"),
        ("a.h5", np.ones(3), "a.h5 must end in one of .safetensors, .npz, .pth"),
    ],
)
def test_what_cannot_be_written_is_told(tmp_path, name, array, words):
    with pytest.raises(ValueError, match=words):
        files.write(tmp_path / name, {"w": array})
    assert not list(tmp_path.iterdir())


def test_without_torch_its_files_are_not_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r"a.pth is written by PyTorch: pip install"):
        files.write(tmp_path / "a.pth", STATE)


# Folders.


def fill(folder: pathlib.Path, names) -> pathlib.Path:
    """Files of weights whose array is called by their place in `names`."""
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        files.write(folder / "new.safetensors", {f"w{number}": np.ones(3)})
        (folder / "new.safetensors").rename(folder / name)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ("model.safetensors", "pytorch_model.bin", "other.pth"),
        ("pytorch_model.bin", "encoder.pkl"),
        ("only.pth", "notes.md"),
        ("only.safetensors", "training_args.json"),
    ],
)
def test_a_folder_has_one_file_that_counts(tmp_path, names):
    found = files.read(fill(tmp_path / "hub", names))
    assert list(found.state) == ["w0"] and found.path == tmp_path / "hub"


def test_encoder_and_decoder_are_read_together(tmp_path):
    folder = fill(tmp_path, ["encoder.pkl", "decoder.pkl"])
    assert list(files.read(folder).state) == ["encoder.w0", "decoder.w1"]
    (folder / "decoder.pkl").unlink()
    assert list(files.read(folder).state) == ["encoder.w0"]


@pytest.mark.parametrize("names", [(), ("a.pth", "b.pth"), ("notes.md",)])
def test_a_folder_in_which_no_file_counts_is_told(tmp_path, names):
    fill(tmp_path, names)
    assert_refused(tmp_path, "name one file, or a folder with model.safetensors")


def test_a_folders_texts_are_read(tmp_path):
    fill(tmp_path, ["model.safetensors"])
    (tmp_path / "config.json").write_text('{"model_type": "beit"}')
    assert files.read(tmp_path).texts == {"config.json": {"model_type": "beit"}}
    (tmp_path / "preprocessor_config.json").write_text('{"size": 224}')
    assert files.read(tmp_path).texts["preprocessor_config.json"] == {"size": 224}


@pytest.mark.parametrize("text", ["{", "[]", "\x00", "[" * 100_000, '{"a": 1, "a": 2}'])
def test_a_text_that_is_damaged_is_told(tmp_path, text):
    fill(tmp_path, ["model.safetensors"])
    (tmp_path / "config.json").write_text(text)
    assert_refused(tmp_path, "download", tmp_path / "config.json")


def parts(folder: pathlib.Path, weight_map, names=("one.bin", "two.bin")):
    fill(folder, names)
    text = json.dumps({"metadata": {}, "weight_map": weight_map})
    (folder / "pytorch_model.bin.index.json").write_text(text)
    return folder


def test_parts_are_read_together(tmp_path):
    folder = parts(tmp_path, {"w0": "one.bin", "w1": "two.bin"})
    assert files.read(folder).state.keys() == {"w0", "w1"}


@pytest.mark.parametrize(
    "weight_map, words",
    [
        ({"w0": "one.bin", "w1": "../two.bin"}, "names '../two.bin', which is no file"),
        ({"w0": "one.bin", "w1": "/etc/x"}, "names '/etc/x', which is no file"),
        ({"w0": "one.bin", "w1": "C:\\x"}, r"names 'C:\\\\x', which is no file"),
        ({"w0": "one.bin", "w1": None}, "two.bin|None"),
        ([], "no weight_map"),
        ({}, "no weight_map"),
    ],
)
def test_an_index_names_files_beside_it(tmp_path, weight_map, words):
    index = "(pytorch_model.bin.index.json|None)"
    with pytest.raises(ValueError, match=f"{index}.*({words}|cannot be read)"):
        files.read(parts(tmp_path, weight_map))


@pytest.mark.parametrize(
    "weight_map, wrong",
    [
        ({"w0": "one.bin", "w1": "two.bin", "w2": "two.bin"}, "w2"),
        ({"w0": "one.bin", "w1": "one.bin"}, "w1"),
        ({"w1": "two.bin", "x": "one.bin"}, "w0, x"),
    ],
)
def test_parts_have_what_the_index_says(tmp_path, weight_map, wrong):
    folder = parts(tmp_path, weight_map)
    with pytest.raises(ValueError, match=rf"(one|two).bin and .* on {wrong} \("):
        files.read(folder)


def test_a_part_that_is_missing_is_told(tmp_path):
    folder = parts(tmp_path, {"w0": "gone.bin"})
    assert_refused(folder, "No such file", folder / "gone.bin")


# Damage.


def safetensors(path, header, data=b"", length=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(header) if length is None else length
    path.write_bytes(struct.pack("<Q", length) + header + data)
    return path


def array(start, end, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HEADERS = {
    "overlapping": ({"a": array(0, 8), "b": array(4, 12)}, 12),
    "with a gap": ({"a": array(0, 8), "b": array(12, 20)}, 20),
    "cut off": ({"a": array(0, 8), "b": array(8, 16)}, 12),
    "with something behind": ({"a": array(0, 8)}, 12),
    "backwards": ({"a": array(8, 0)}, 8),
    "beyond 64 bits": ({"a": array(0, 8, [2**62, 4])}, 8),
    "of negative size": ({"a": array(0, 8, [-2])}, 8),
    "of other size": ({"a": array(0, 8, [3])}, 8),
    "of unknown type": ({"a": array(0, 8, [1], "Q9")}, 8),
    "of half bytes": ({"a": array(0, 8, [16], "F4")}, 8),
    "with numbers as metadata": ({"__metadata__": {"x": 1}, "a": array(0, 8)}, 8),
    "not of JSON": (b'{"a":', 8),
    "not of UTF-8": (b'{"\xff":1}', 8),
    "nested": (b'{"a":' * 50_000, 8),
    "of nothing": ({}, 0),
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_that_lies_is_told(tmp_path, header):
    header, size = HEADERS[header]
    assert_refused(safetensors(tmp_path / "a.bin", header, bytes(size)), "again")


@pytest.mark.parametrize("length", [0, 5, 2**24, 2**40, 2**64 - 1])
def test_a_header_whose_length_lies_is_told(tmp_path, length):
    path = tmp_path / "a.safetensors"
    safetensors(path, {"a": array(0, 8)}, bytes(8), length)
    assert_refused(path, "header")


def test_safetensors_cut_off_anywhere_are_told(tmp_path):
    path = tmp_path / "a.safetensors"
    files.write(path, STATE, {"config": "x"})
    content = path.read_bytes()
    for end in range(0, len(content), 7):
        path.write_bytes(content[:end])
        assert_refused(path, "again")


def test_one_flipped_bit_anywhere_in_our_safetensors_is_found(tmp_path):
    """But in the checksum's own name, without which there is none."""
    path = tmp_path / "a.safetensors"
    files.write(path, STATE, {"config": "x"})
    content = path.read_bytes()
    own = content.index(safetensors_file.CHECKSUM.encode())
    unseen = []
    for at in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at // 3 % 8
        path.write_bytes(damaged)
        try:
            files.read(path)
        except ValueError as error:
            assert str(error).startswith(str(path))
        else:
            unseen.append(at)
    assert all(own <= at < own + len(safetensors_file.CHECKSUM) for at in unseen)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_one_flipped_bit_in_the_numbers_is_found(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    files.write(path, {"w": STATE["a/b.c"]})
    content = bytearray(path.read_bytes())
    content[content.index(STATE["a/b.c"].tobytes()) + 9] ^= 4
    path.write_bytes(content)
    assert_refused(path, "damaged .wrong checksum")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_numbers_that_are_not_finite_are_told(tmp_path, value, dtype):
    state = {"fine": np.ones(3, dtype), "bad": np.array([1, value], dtype)}
    files.write(tmp_path / "a.safetensors", state)
    assert_refused(tmp_path / "a.safetensors", "'bad' has numbers that are not finite")


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_an_npz_with_objects_is_refused(tmp_path):
    sentinel = tmp_path / "sentinel"
    objects = np.empty(1, object)
    objects[0] = Runs(sentinel)
    np.savez(tmp_path / "a.npz", w=objects)
    assert_refused(tmp_path / "a.npz", "Object arrays cannot be loaded")
    assert not sentinel.exists()
    np.load(tmp_path / "a.npz", allow_pickle=True)["w"]
    assert sentinel.exists()


def npz(path, name, shape, compression=zipfile.ZIP_STORED, size=24):
    """Of one array, which claims a shape."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr(name, content + bytes(size))
    return path


@pytest.mark.parametrize(
    "words, claims",
    [
        ("leads out of the archive", {"name": "../w.npy"}),
        ("is compressed", {"compression": zipfile.ZIP_DEFLATED, "size": 10**7}),
        ("cannot be read", {"shape": (7,)}),
        ("cannot be read", {"shape": (10**15,)}),
        ("cannot be read", {"shape": (-1,)}),
        ("cannot be read", {"shape": "__import__('os')"}),
    ],
)
def test_an_npz_that_lies_is_refused(tmp_path, words, claims):
    path = npz(tmp_path / "a.npz", **{"name": "w.npy", "shape": (2, 3), **claims})
    assert_refused(path, words)


def test_an_honest_npz_of_the_same_making_is_read(tmp_path):
    state = files.read(npz(tmp_path / "a.npz", "w.npy", (2, 3))).state
    assert_same(state, {"w": np.zeros((2, 3), np.float32)})


OTHERS = {
    "is a web page": b"\n <!DOCTYPE html><html><body>Sign in</body></html>",
    "is a web page, ": b"<HTML>404</HTML>",
    "is git-lfs's pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
    "is empty": b"",
    "is compressed: unpack it": b"\x1f\x8b\x08\x00",
    "is a tar archive": bytes(257) + b"ustar\x0000",
    "is of HDF5": b"\x89HDF\r\n\x1a\n",
    "is none of .safetensors, .npz and": b"Not found",
    "a pickle, but none of torch.save": pickle.dumps({"w": 1}),
    "is damaged": b"PK\x03\x04 and no more",
}


@pytest.mark.parametrize("words", OTHERS)
def test_a_file_of_another_kind_is_told(tmp_path, words):
    path = tmp_path / "beit_base_patch16_224_pt22k.pth"
    path.write_bytes(OTHERS[words])
    assert_refused(path, words)


def test_a_file_that_is_missing_is_told(tmp_path):
    assert_refused(tmp_path / "gone.pth", "No such file or directory")
