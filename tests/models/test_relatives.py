"""SimMIM, MaskFeat and MAE on our encoder, beside numbers of PyTorch code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.checkpoints.foreign import beit_names, rules
from beit_jax.heads.decoder import Decoder
from beit_jax.heads.network import Network
from beit_jax.heads.tokens import TokenHead
from beit_jax.models import positions
from beit_jax.targets.hog import HOG
from beit_jax.targets.pixels import Pixels
from tests.agreement import assert_agrees
from tests.models import official
from tests.models.test_official import assert_gradients_agree

pytestmark = pytest.mark.usefixtures("optimised")


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


def in_bytes(image):
    """Floats in [-1, 1], (B, 3, H, W) -> those of 0..255, (B, H, W, 3)."""
    return (np.moveaxis(image, 1, -1) * 0.5 + 0.5) * 255


def without_key_bias(state):
    """A plain ViT's state dict (or its gradients) by BEiT's names."""
    made = {}
    for name, leaf in state.items():
        if name.endswith("attn.qkv.bias"):
            query, _, value = np.split(leaf, 3)
            start = name.removesuffix("qkv.bias")
            made |= {f"{start}q_bias": query, f"{start}v_bias": value}
        else:
            made[name] = leaf
    return made


def predicted(network, images, mask, target, **shown):
    """Parameters -> ((loss over masked patches, predictions (B, N, outputs)))."""
    shown = shown or {"mask": mask}
    wanted = target({}, in_bytes(images))

    @jax.jit
    def loss(params):
        made = network.apply(
            {"params": params}, np.moveaxis(images, 1, -1), **shown, train=True
        )
        each = target.loss(made, wanted)
        return jnp.sum(each, where=mask) / mask.sum(), made

    return jax.value_and_grad(loss, has_aux=True)


def test_simmim_matches_official():
    arrays, meta = official.load("simmim_vit")
    size, peer = meta["patch_size"], "oracle simmim_vit"
    mask = arrays["in/mask"].reshape(meta["batch"], -1) == 1
    settings = {"ln_eps": 1e-6, "use_shared_rel_pos_bias": True}
    encoder = official.encoder(meta | settings, mask_token=True)
    # A channel of its 1x1 convolution is (colour, row, column), ours (row, column,
    # colour): which prediction is which pixel is a matter of names.
    order = np.arange(3 * size**2).reshape(3, size, size).transpose(1, 2, 0).ravel()

    def params(prefix):
        state = official.group(arrays, prefix)
        head = {"lm_head.weight": state.pop("decoder.0.weight")[order, :, 0, 0]}
        head["lm_head.bias"] = state.pop("decoder.0.bias")[order]
        state = {k.removeprefix("encoder."): x for k, x in state.items()}
        return official.tree(without_key_bias(state) | head, meta["num_heads"])

    target = Pixels(encoder.grid, size, loss="l1")
    network = Network(encoder, TokenHead(target.outputs))
    compute = predicted(network, arrays["in/images"], mask, target)
    (loss, made), grads = compute(params("param"))
    assert_agrees(peer, "loss", loss, arrays["out/loss"], atol=2e-6)
    h, w = encoder.grid
    made = made.reshape(-1, h, w, size, size, 3).transpose(0, 5, 1, 3, 2, 4)
    picture = arrays["out/reconstruction"]
    assert_agrees(peer, "pictures", made.reshape(picture.shape), picture, atol=1e-5)
    assert_gradients_agree(peer, grads, params("grad"))


def test_maskfeat_matches_official():
    arrays, meta = official.load("maskfeat")
    peer, heads = "oracle maskfeat", meta["heads"]
    settings = {"embed_dim": meta["dim"], "num_heads": heads, "use_abs_pos_emb": True}
    encoder = official.encoder(meta | settings, mask_token=True, layer_scale=0.0)
    target = HOG(encoder.grid, meta["patch_size"], gaussian=True)
    network = Network(encoder, TokenHead(target.outputs))

    def params(prefix):
        state = official.group(arrays, prefix)
        head = {k.replace("head.", "lm_head."): x for k, x in state.items()}
        return official.tree(without_key_bias(head), heads)

    images, mask = arrays["in/images"], arrays["in/mask"]
    compute = predicted(network, images, mask, target)
    (loss, made), grads = compute(params("param"))
    assert_agrees(peer, "loss", loss, arrays["out/loss"], atol=2e-6)
    assert_agrees(peer, "predictions", made, arrays["out/pred"], atol=1e-5)
    assert_gradients_agree(peer, grads, params("grad"))


@pytest.mark.parametrize("normalize", [True, False], ids=["norm_pix", "raw"])
def test_mae_matches_official(normalize):
    arrays, meta = official.load("mae")
    peer, ending = "oracle mae", "" if normalize else "_raw"
    encoder = official.encoder(meta, abs_pos_embed="learned", layer_scale=0.0)
    target = Pixels(encoder.grid, meta["patch_size"], normalize)
    head = Decoder(
        target.outputs,
        dim=meta["decoder_embed_dim"],
        depth=meta["decoder_depth"],
        heads=meta["decoder_num_heads"],
        pos_embed="learned",
    )
    params = mae(official.group(arrays, "param"), meta)
    order = np.argsort(arrays["in/noise"], axis=1)
    keep = int(order.shape[1] * (1 - meta["mask_ratio"]))
    mask = arrays["out/mask"] == 1
    np.testing.assert_array_equal(np.argsort(order, axis=1), arrays["out/ids_restore"])
    images, seen = arrays["in/images"], order[:, :keep]
    network = Network(encoder, head)
    compute = predicted(network, images, mask, target, visible=seen)
    (loss, made), grads = compute(params)
    assert_agrees(peer, f"loss{ending}", loss, arrays[f"out/loss{ending}"], atol=2e-6)
    assert_agrees(peer, "predictions", made, arrays["out/pred"], atol=1e-5)
    if not normalize:
        return
    latent = jax.jit(lambda x: encoder.apply({"params": params["encoder"]}, x))(
        np.moveaxis(images, 1, -1)
    )
    wanted = arrays["out/full_tokens_norm"]
    assert_agrees(peer, "tokens of whole images", latent.tokens, wanted, atol=1e-5)
    wanted = mae(official.group(arrays, "grad"), meta)
    for tree, name in ((grads["encoder"], "pos_embed"), (grads, "decoder_pos_embed")):
        del tree[name]  # theirs do not train
    assert_gradients_agree(peer, grads, wanted)


def test_sincos_positions_are_those_of_mae():
    arrays, meta = official.load("sincos")
    for dim, side in meta["tables"]:
        table = positions.sincos((side, side), dim)[0]
        wanted = arrays[f"out/mae_d{dim}_g{side}"]
        assert_agrees("oracle sincos", "table", table, wanted, atol=1e-6)


def mae(state, meta):
    """Our parameters (or gradients) of a state dict of MAE with its decoder."""
    names = beit_names.of_state(state)
    parts = names.parts(meta["num_heads"], meta["decoder_num_heads"])
    there = [p for p in parts if beit_names.in_layer_0(p.official) in state]
    rows = names.rows(there)
    return rules.read(rows, state, allow=("*",))[0]["params"]
