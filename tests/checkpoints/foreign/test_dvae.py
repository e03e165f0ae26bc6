"""DALL-E's dVAE: OpenAI's names and transformers', whole and in halves."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.checkpoints import write
from beit_jax.checkpoints.foreign import dvae, families, files
from beit_jax.checkpoints.foreign.rules import NO_HINTS
from beit_jax.checkpoints.names import flatten
from beit_jax.models.dvae import DVAE
from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.targets.tokens import Tokens
from tests.agreement import assert_agrees
from tests.checkpoints.foreign.test_tokenizers import (
    assert_equal,
    checkpoint,
    read,
    state_of,
)


def halves():
    """State dicts of encoder.pkl and of decoder.pkl."""
    state = state_of(checkpoint("dvae"))
    return [
        {k.removeprefix(half): x for k, x in state.items() if k.startswith(half)}
        for half in ("encoder.", "decoder.")
    ]


def images(count=2, size=24):
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), np.uint8)


def tokens_of(saved):
    """(B, N) ids that a target with these weights gives `images()`."""
    settings = {k: saved.config["model"][k] for k in ("vocab", "n_hid", "patch_size")}
    image = PIXEL_SPACES["dalle"].to_float(images())
    variables = {"params": saved.params}
    ids = DVAE(**settings).apply(variables, image, method="encode")
    return ids.reshape(len(ids), -1)


def test_names_are_those_of_the_files():
    names = {theirs: ours for theirs, ours, _ in dvae.rows()}
    conv = "encoder.blocks.group_4.block_2.res_path.conv_4.w"
    assert names[conv] == "params/encoder/group_4/block_2/conv_4/kernel"
    assert "encoder.blocks.group_1.block_1.id_path.w" not in names
    assert "decoder.blocks.group_1.block_1.id_path.w" in names
    names = {theirs: ours for theirs, ours, _ in dvae.encoder_rows(dvae.rows(), "hf")}
    conv = "blocks.group_4.group.block_2.res_path.path.conv_4.bias"
    assert names[conv] == "params/encoder/group_4/block_2/conv_4/bias"


def test_the_published_sizes_are_told_from_the_shapes():
    made = jax.eval_shape(DVAE().init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    shapes = flatten(made)
    counts = {"encoder": 0, "decoder": 0}
    state = {}
    for theirs, ours, op in dvae.rows():
        leaf = shapes[ours]
        counts[ours.split("/")[1]] += leaf.size
        whole = np.broadcast_to(np.float32(0), leaf.shape)  # of one number in memory
        state[theirs] = op.write(whole)
    assert counts == {"encoder": 53_786_240, "decoder": 43_829_766}
    found = files.Found(pathlib.Path("dalle"), state, {})
    model = dvae.understand(found, "official", NO_HINTS).sections["model"]
    sizes = ("vocab", "n_hid", "n_init", "blocks_per_group", "patch_size")
    assert {k: model[k] for k in sizes} == {k: getattr(DVAE, k) for k in sizes}
    assert (model["image_size"], model["pixels"]) == (112, "dalle")


@pytest.mark.parametrize("wrap", ["alone", "in a folder", "hf", "flava"])
def test_an_encoder_alone_makes_the_same_tokens(wrap):
    whole, (state, _) = checkpoint("dvae"), halves()
    if wrap == "in a folder":
        state = {f"encoder.{name}": x for name, x in state.items()}
    if wrap in ("hf", "flava"):
        state = state_of(whole, "hf")
    if wrap == "flava":
        others = ("flava.image_model.layernorm.bias", "flava.logit_scale", "scale")
        state = {f"image_codebook.{name}": x for name, x in state.items()}
        state |= dict.fromkeys(others, np.zeros(2, np.float32))
    saved, report = read(state)
    assert_equal(flatten(saved.params["encoder"]), flatten(whole.params["encoder"]))
    assert saved.params.keys() == {"encoder"}
    assert len(report.ignored) == (3 if wrap == "flava" else 0)
    assert "makes tokens, paints none" in report.notes[0]
    np.testing.assert_array_equal(tokens_of(saved), tokens_of(whole))
    theirs = state_of(saved)
    assert_equal(theirs, {f"encoder.{name}": x for name, x in halves()[0].items()})


@pytest.mark.parametrize("prefix", ["", "decoder."])
def test_a_decoder_alone_is_refused(prefix):
    state = {prefix + name: x for name, x in halves()[1].items()}
    with pytest.raises(ValueError, match="decoder only.*has encoder.pkl too"):
        read(state, path="dalle/decoder.pkl")


def test_transformers_have_no_other_sizes_of_patches():
    with pytest.raises(ValueError, match="patches are of 8 px, not of 2"):
        state_of(checkpoint("dvae, a decoder of one width"), "hf")


def from_torch(case_name="dvae"):
    """DALL-E's networks with random weights, of tests.parity.cases."""
    from tests.parity import peers
    from tests.parity.cases import CASES

    return peers.load(peers.build(CASES[case_name]), CASES[case_name]).eval()


@pytest.mark.parity
def test_pickled_networks_of_dall_e_serve_as_a_target(tmp_path):
    torch, dall_e = (pytest.importorskip(name) for name in ("torch", "dall_e"))
    model = from_torch()
    for half in ("encoder", "decoder"):
        torch.save(model[half], tmp_path / f"{half}.pkl")
    saved, _ = families.restore(files.read(tmp_path))
    assert_equal(state_of(saved), {k: x.numpy() for k, x in model.state_dict().items()})
    tokens = Tokens((3, 3), 16, str(tmp_path), image_size=24)
    frozen = tokens.frozen.load()
    pixels = torch.tensor(images()).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        logits = model["encoder"](dall_e.map_pixels(pixels))
        ids = logits.argmax(1)
        one_hot = torch.nn.functional.one_hot(ids, logits.shape[1]).permute(0, 3, 1, 2)
        stats = model["decoder"](one_hot.float())
        wanted = dall_e.unmap_pixels(torch.sigmoid(stats[:, :3])).permute(0, 2, 3, 1)
    ids, logits = ids.numpy(), logits.permute(0, 2, 3, 1).numpy()
    ours = jax.jit(tokens)(frozen, images())
    assert_agrees("dall_e 0.1", "tokens of its pickles", ours, ids.reshape(2, -1), 0)
    painted = tokens.paint(frozen, ours, images())
    np.testing.assert_allclose(painted, 255 * wanted.numpy(), atol=0.51)
    space, net = PIXEL_SPACES["dalle"], DVAE(vocab=19, n_hid=16, n_init=12)
    with jax.default_matmul_precision("highest"):
        ours = net.apply(frozen, space.to_float(images()), method="logits")
    scale = np.abs(logits).max()
    assert_agrees(
        "dall_e 0.1", "logits of its pickles", ours / scale, logits / scale, 1e-5
    )


@pytest.mark.parity
def test_transformers_and_we_read_each_others_codebook(tmp_path):
    torch = pytest.importorskip("torch")
    flava = pytest.importorskip("transformers.models.flava.modeling_flava")
    model = from_torch("flava_codebook")
    model.save_pretrained(tmp_path / "theirs")
    saved, _ = families.restore(files.read(tmp_path / "theirs"))
    pixels = PIXEL_SPACES["dalle"].to_float(images())
    pixels = torch.tensor(np.asarray(pixels).transpose(0, 3, 1, 2))
    wanted = model.get_codebook_indices(pixels).numpy().reshape(2, -1)
    np.testing.assert_array_equal(tokens_of(saved), wanted)
    write.write(saved, tmp_path / "ours", "hf")
    again, said = flava.FlavaImageCodebook.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(said.values()), said
    ids = again.get_codebook_indices(pixels).numpy().reshape(2, -1)
    np.testing.assert_array_equal(ids, wanted)
