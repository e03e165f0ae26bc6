"""A trained PyTorch VQ-VAE: read, and computed to the same numbers."""

import functools
import sys

import jax
import numpy as np
import pytest

from beit_jax.convert import vqvae
from beit_jax.convert.rules import write
from beit_jax.models.vqvae import VQVAE
from beit_jax.weights import flatten
from tests.agreement import assert_agrees
from tests.shared import shared_path

PEER = "trained VQ-VAE (torch)"


@functools.cache
def trained():
    """Our model with the trained weights, and its variables."""
    folder = shared_path("data/vqvae_tokenizer")
    settings, params, model_state = vqvae.load(folder / "vqvae.npz")
    return VQVAE(**settings), {"params": params, **model_state}


@functools.cache
def reference():
    with np.load(shared_path("data/vqvae_tokenizer/reference.npz")) as arrays:
        return dict(arrays)


def images():
    return reference()["images_uint8"].astype(np.float32) / 255 - 0.5


def theirs(res_blocks=1):
    """A random state dict of a small network."""
    rng = np.random.default_rng(0)
    sizes = {
        "vq_vae.codebook": (9, 5),
        "encoder._blocks.conv_1": (4, 3, 4, 4),
        "encoder._blocks.conv_2": (8, 4, 4, 4),
        "encoder._blocks.conv_3": (8, 8, 3, 3),
        "pre_vq_conv": (5, 8, 1, 1),
        "decoder._blocks.conv_1": (8, 5, 3, 3),
        "decoder._blocks.conv_t_1": (8, 4, 4, 4),
        "decoder._blocks.conv_t_2": (4, 3, 4, 4),
    }
    biases = {k: v[1 if "conv_t" in k else 0] for k, v in sizes.items()}
    biases.pop("vq_vae.codebook")
    for net in ("encoder", "decoder"):
        for i in range(res_blocks):
            for conv, shape in ((1, (2, 8, 3, 3)), (2, (8, 2, 1, 1))):
                name = vqvae.BLOCK.format(net=net, i=i, conv=conv)
                sizes[name.removesuffix(".weight")] = shape
    state = {f"{k}.weight": v for k, v in sizes.items()}
    state |= {f"{k}.bias": (v,) for k, v in biases.items()}
    return {k: rng.normal(size=v).astype(np.float32) for k, v in state.items()}


@pytest.mark.parametrize("res_blocks", [0, 1, 3])
def test_a_state_dict_fits_the_model_that_its_shapes_tell(res_blocks):
    settings, params, model_state = vqvae.convert(theirs(res_blocks))
    image = np.zeros((1, 8, 8, 3), np.float32)
    wanted = jax.eval_shape(VQVAE(**settings).init, jax.random.key(0), image)
    have = flatten({"params": params, **model_state})
    assert {k: (v.shape, v.dtype) for k, v in have.items()} == {
        k: (v.shape, v.dtype) for k, v in flatten(dict(wanted)).items()
    }


def test_the_codebook_goes_on_from_where_it_is():
    codebook = vqvae.convert(theirs())[2]["codebook"]["quantizer"]
    np.testing.assert_array_equal(codebook["embedding"], codebook["embed_sum"])
    np.testing.assert_array_equal(codebook["cluster_size"], np.ones(9))
    assert codebook["initted"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"decoder._blocks.conv_4.bias": np.zeros(3)}, "has besides .*conv_4.bias"),
        ({"pre_vq_conv.bias": None}, "lacks .*pre_vq_conv.bias"),
        ({"vq_vae.codebook.weight": None}, "no DeepMind VQ-VAE: .* lacks"),
    ],
)
def test_another_state_dict_is_refused(change, message):
    state = {k: v for k, v in (theirs() | change).items() if v is not None}
    with pytest.raises(ValueError, match=message):
        vqvae.convert(state)


def test_a_file_of_torch_without_torch_is_refused_in_words(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match="a/vqvae.pt: it needs PyTorch: pip install"):
        vqvae.load("a/vqvae.pt")


@pytest.mark.parity
def test_both_files_hold_the_same_weights():
    pytest.importorskip("torch")
    _, params, model_state = vqvae.load(shared_path("data/vqvae_tokenizer/vqvae.pt"))
    again = flatten({"params": params, **model_state})
    for name, value in flatten(trained()[1]).items():
        np.testing.assert_array_equal(value, again[name], strict=True)


def test_trained_weights_survive_the_way_here_and_back():
    tree = flatten(trained()[1])
    paths = {ours for _, ours, _ in vqvae.rows()}
    ours = {path: value for path, value in tree.items() if path in paths}
    assert sum(value.size for value in ours.values()) == 973_443
    state = write(vqvae.rows(), ours)
    with np.load(shared_path("data/vqvae_tokenizer/vqvae.npz")) as given:
        assert state.keys() == given.keys()
        for name in given:
            np.testing.assert_array_equal(state[name], given[name], strict=True)


def test_photographs_get_the_same_codes():
    model, variables = trained()
    encode = jax.jit(functools.partial(model.apply, method="encode"))
    with jax.default_matmul_precision("highest"):
        got = encode(variables, images())
    assert_agrees(PEER, "codes", got, reference()["codes"], atol=0)


def test_photographs_are_painted_the_same():
    model, variables = trained()
    decode = jax.jit(functools.partial(model.apply, method="decode"))
    with jax.default_matmul_precision("highest"):
        got = 0.5 + decode(variables, reference()["codes"][:2])
    want = reference()["recon_first2"].transpose(0, 2, 3, 1)
    assert_agrees(PEER, "reconstruction", got, want, atol=1e-5)
