"""What torch itself saves is read, and what is written it reads."""

import argparse
import collections
import pathlib
import zipfile

import ml_dtypes
import numpy as np
import pytest

from beit_jax.checkpoints.foreign import files, torch_pickle
from tests.checkpoints.handmade import DATA, SIX, STATE, archive, assert_refused, read


@pytest.fixture(params=["archive", "row"])
def save(request, tmp_path):
    """Writes one of the two formats with torch."""
    torch = pytest.importorskip("torch")

    def write(what, file="a.pth"):
        zipped = request.param == "archive"
        torch.save(what, tmp_path / file, _use_new_zipfile_serialization=zipped)
        return tmp_path / file

    return write


def assert_same(state, tensors):
    import torch

    assert state.keys() == tensors.keys()
    for key, want in tensors.items():
        want, got = want.detach(), state[key]
        assert str(want.dtype) == f"torch.{got.dtype.name}", key
        assert tuple(want.shape) == got.shape, key
        raw = np.ascontiguousarray(got).tobytes()
        assert raw == want.contiguous().flatten().view(torch.uint8).numpy().tobytes()


@pytest.mark.parity
@pytest.mark.parametrize("dtype", torch_pickle.DTYPES)
def test_torch_types(save, dtype):
    torch = pytest.importorskip("torch")
    tensors = {"w": torch.arange(6).reshape(2, 3).to(getattr(torch, dtype))}
    assert_same(read(save(tensors)), tensors)


@pytest.mark.parity
def test_torch_views(save):
    torch = pytest.importorskip("torch")
    base = torch.arange(60.0).reshape(3, 4, 5)
    tensors = {
        "whole": base,
        "transposed": base.permute(2, 0, 1),
        "part": base[1:, ::2, 3],
        "scalar": base[2, 3, 4],
        "empty": base[:, :0],
        "expanded": torch.arange(3).expand(1, 3),
        "parameter": torch.nn.Parameter(base[0]),
        "channels last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    assert_same(read(save(tensors)), tensors)


@pytest.mark.parity
def test_torch_checkpoints_of_official_runs(save):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    args = argparse.Namespace(lr=np.float32(1), to=pathlib.Path("x"), size=(1, 2))
    args.device, args.array = torch.device("cpu"), np.ones(3)
    state = net.state_dict()
    assert isinstance(state, collections.OrderedDict) and state._metadata
    checkpoint = {
        "model": state,
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "scaler": {"scale": 1.0},
        "args": args,
    }
    assert_same(read(save(checkpoint)), state)


@pytest.mark.parity
def test_torch_modules(save):
    torch = pytest.importorskip("torch")
    dall_e = pytest.importorskip("dall_e")
    on = {"device": torch.device("cpu"), "requires_grad": False}
    small = {"n_hid": 8, "n_blk_per_group": 1, "vocab_size": 16, **on}
    for cls in (dall_e.Encoder, dall_e.Decoder):
        net = cls(**{"n_init": 8} if cls is dall_e.Decoder else {}, **small)
        assert_same(read(save(net)), net.state_dict())
        assert_same(read(save({"model": net.half()})), net.state_dict())


@pytest.mark.parity
def test_torch_reads_what_is_written(tmp_path):
    torch = pytest.importorskip("torch")
    state = {"a.b": SIX.reshape(2, 3).T, "bf": SIX.astype(ml_dtypes.bfloat16)}
    state |= {"index": np.arange(3), "scalar": np.float32(3)}
    state["a.b"].flags.writeable = False
    files.write(tmp_path / "a.pth", state)
    tensors = torch.load(tmp_path / "a.pth", weights_only=True)["model"]
    assert tensors["bf"].dtype == torch.bfloat16
    assert_same(files.read(tmp_path / "a.pth").state, tensors)
    np.testing.assert_array_equal(tensors["a.b"], state["a.b"])


@pytest.mark.parity
def test_torch_reads_what_the_tests_make_by_hand(write, tmp_path):
    torch = pytest.importorskip("torch")
    path = write(tmp_path / "a.pth", STATE, DATA)
    if write is archive:
        with zipfile.ZipFile(path, "a") as file:
            file.writestr("archive/version", "3\n")
    assert_same(read(path), torch.load(path, weights_only=True))


@pytest.mark.parity
def test_torch_buffers_are_refused(save):
    torch = pytest.importorskip("torch")
    path = save({"w": torch.eye(2).to_sparse()})
    assert_refused(path, "names torch._utils._rebuild_sparse_tensor")
    assert_refused(save({"w": torch.ones(2, dtype=torch.complex64).conj()}), "conj")
