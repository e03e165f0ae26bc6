"""A trained PyTorch VQ-VAE: read, and computed to the same numbers."""

import functools
import pathlib

import jax
import numpy as np
import pytest

from beit_jax import config as config_lib
from beit_jax import tasks
from beit_jax.checkpoints.foreign import families, files, vqvae
from tests.agreement import assert_agrees
from tests.checkpoints.foreign.test_tokenizers import (
    assert_equal,
    checkpoint,
    flat,
    read,
    state_of,
)
from tests.shared import shared_path

PEER = "trained VQ-VAE (torch)"


@functools.cache
def trained():
    path = shared_path("data/vqvae_tokenizer/vqvae.npz")
    return families.restore(files.read(path))[0]


def apply(method, *args):
    """What our network with the trained weights makes of it."""
    saved = trained()
    model = tasks.build(config_lib.from_dict(saved.config)).model
    variables = {"params": saved.params, **saved.model_state}
    with jax.default_matmul_precision("highest"):
        return jax.jit(functools.partial(model.apply, method=method))(variables, *args)


@functools.cache
def reference():
    with np.load(shared_path("data/vqvae_tokenizer/reference.npz")) as arrays:
        return dict(arrays)


def images():
    return reference()["images_uint8"].astype(np.float32) / 255 - 0.5


def test_the_codebook_goes_on_from_where_it_is():
    codebook = read(state_of(checkpoint("vqvae")))[0].model_state["codebook"]
    codebook = codebook["quantizer"]
    np.testing.assert_array_equal(codebook["embedding"], codebook["embed_sum"])
    assert codebook["embed_sum"] is not codebook["embedding"]
    np.testing.assert_array_equal(codebook["cluster_size"], np.ones(5))
    assert codebook["initted"]


@pytest.mark.parametrize(
    "setting", [{"network": "patches"}, {"patch_size": 8}, {"l2_norm": True}]
)
def test_another_network_of_ours_is_not_written(setting):
    saved = checkpoint("vqvae")
    model = saved.config["model"] | setting
    (words,) = (f"{k}={v!r}" for k, v in setting.items())
    with pytest.raises(ValueError, match=f"DeepMind's VQ-VAE has .*random has {words}"):
        vqvae.foreign(
            saved._replace(config={"model": model}), "official", pathlib.Path("x")
        )


def test_both_files_hold_the_same_weights():
    path = shared_path("data/vqvae_tokenizer/vqvae.pt")
    again, _ = families.restore(files.read(path))
    assert_equal(flat(again), flat(trained()))


def test_trained_weights_survive_the_way_here_and_back():
    given = files.read(shared_path("data/vqvae_tokenizer/vqvae.npz")).state
    assert sum(array.size for array in given.values()) == 973_443
    assert_equal(state_of(trained()), given)


def test_photographs_get_the_same_codes():
    got = apply("encode", images())
    assert_agrees(PEER, "codes", got, reference()["codes"], atol=0)


def test_photographs_are_painted_the_same():
    got = 0.5 + apply("decode", reference()["codes"][:2])
    want = reference()["recon_first2"].transpose(0, 2, 3, 1)
    assert_agrees(PEER, "reconstruction", got, want, atol=1e-5)
