"""Heads of segmentation against numbers recorded from mmseg's code, and by themselves.

Tolerances are those that meta.json of the records suggests.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.heads import HEADS, network
from beit_jax.heads.convolutions import Classify, average_pool, max_pool
from beit_jax.heads.segmentation import four
from beit_jax.heads.setr import MLA, PUP, Naive
from beit_jax.heads.upernet import Neck
from beit_jax.models.presets import VARIANTS
from beit_jax.models.vit import Encoder
from tests.agreement import assert_agrees
from tests.heads import recorded
from tests.models import official

pytestmark = pytest.mark.usefixtures("optimised")
# Recorded head -> ours, and the map that it saw; None: all four.
SETR = {
    "pup": (PUP, {}, 3),
    "naive": (Naive, {}, 3),
    "aux2": (PUP, {"convs": 2, "scale": 4}, 1),
    "mla": (MLA, {"mla_channels": 3}, None),
}


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


def setr(name):
    """(head, variables, features -> maps' taps, arrays of the record, meta)."""
    arrays, meta = official.load("setr_heads")
    kind, settings, seen = SETR[name]
    settings = {"channels": meta["channels"], "auxiliary": 0} | settings
    if kind is MLA:
        settings["auxiliary"] = False
    head = kind(meta["num_classes"], **settings)
    prefixes = {"head.": "decode_head."} if kind is MLA else {"": "decode_head."}

    def tree(part):
        state = official.group(arrays, f"param/{name}")
        state |= official.group(arrays, f"{part}/{name}")
        return recorded.variables(recorded.under(state, **prefixes))

    maps = [arrays[f"in/feat_{i}"] for i in range(4)]
    return head, tree, maps if seen is None else [maps[seen]], seen, arrays


@pytest.mark.parametrize("name", SETR)
def test_setr_matches_mmseg(name):
    head, tree, maps, seen, arrays = setr(name)
    variables = tree("param")
    labels = arrays["in/label"]
    peer = f"oracle setr_heads, {name}"

    def loss(params, maps):
        features = recorded.tapped(maps)
        given = variables | {"params": params}
        out, after = head.apply(given, features, train=True, mutable=["batch_stats"])
        nats = recorded.cross_entropy(out.logits, labels, "all")
        return nats, (out.logits, after["batch_stats"])

    out = jax.jit(head.apply)(variables, recorded.tapped(maps))
    want = arrays[f"out/{name}/eval_logits"]
    assert_agrees(peer, "logits", recorded.nchw(out.logits), want, atol=2e-5)
    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (nats, (logits, after)), (grads, by_maps) = both(variables["params"], maps)
    want = arrays[f"out/{name}/train_logits"]
    assert_agrees(peer, "logits in training", recorded.nchw(logits), want, atol=2e-5)
    assert_agrees(peer, "loss", nats, arrays[f"out/{name}/train_loss"], atol=2e-6)
    rest = {"rtol": 1e-4, "floor": 1e-6}
    recorded.assert_trees_agree(peer, "gradient", grads, tree("grad")["params"], **rest)
    seen = range(4) if seen is None else [seen]
    want = [arrays[f"grad/{name}/in/feat_{i}"] for i in seen]
    recorded.assert_trees_agree(peer, "gradient of a map", by_maps, want, **rest)
    want = tree("after")["batch_stats"]
    recorded.assert_trees_agree(peer, "mean or variance", after, want, 1e-5, 1e-6)


def hf():
    """What transformers' network was, and ran: head, collections, arrays, meta."""
    arrays, meta = official.load("hf_seg")
    config = meta["config"]
    width, auxiliary = config["hidden_size"], config["auxiliary_channels"]
    pools = tuple(config["pool_scales"])
    head = HEADS["upernet"](config["num_labels"], width, auxiliary, pools, 0.0)

    def tree(part):
        state = official.group(arrays, "param") | official.group(arrays, part)
        found = recorded.variables(state, "version_5")
        encoder = official.tree(state, config["num_attention_heads"])["encoder"]
        return found | {"params": found["params"] | {"encoder": encoder}}

    arrays["in/images"] = arrays["in/pixel_values"]
    _, settings = official.load_hf("hf_seg")
    taps = tuple(int(block) for block in arrays["out/tap_blocks_0based"])
    ratio = config["intermediate_size"] / width
    given = {"mlp_ratio": ratio, "final_norm": False, "taps": taps}
    encoder = official.encoder(settings, **given)
    return network.Network(encoder, head), tree, arrays


def test_upernet_matches_transformers():
    net, tree, arrays = hf()
    variables, peer = tree("param"), "oracle hf_seg"
    images, labels = official.images(arrays), arrays["in/labels"]
    key = {"drop_path": jax.random.key(0)}

    def losses(maps):
        both = [
            recorded.cross_entropy(logits, labels, "valid")
            for logits in (maps.logits, *maps.auxiliary)
        ]
        return both[0] + 0.4 * both[1]

    def loss(params):
        given = variables | {"params": params}
        maps, after = network.apply(net, given, images, rngs=key)
        return losses(maps), (maps, after)

    def whole(variables, images):
        return network.apply(net, variables, images)[0].logits

    got = recorded.nchw(jax.jit(whole)(variables, images))
    assert_agrees(peer, "logits", got, arrays["out/eval_logits"], atol=2e-5)
    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (nats, (maps, after)), grads = step(variables["params"])
    got = recorded.nchw(maps.logits)[:1]
    want = arrays["out/train_logits"].reshape(got.shape)
    assert_agrees(peer, "logits in training", got, want, atol=2e-5)
    got = recorded.nchw(maps.auxiliary[0])[:1]
    want = arrays["out/train_aux_logits"].reshape(got.shape)
    assert_agrees(peer, "auxiliary logits", got, want, atol=2e-5)
    assert_agrees(peer, "loss", nats, arrays["out/train_loss"], atol=2e-6)
    want = tree("grad")["params"]
    recorded.assert_trees_agree(peer, "gradient", grads, want, 1e-4, 1e-6)
    want = tree("after")["batch_stats"]
    after = after["batch_stats"]
    recorded.assert_trees_agree(peer, "mean or variance", after, want, 1e-5, 1e-6)
    variables = variables | {"batch_stats": after}
    got = recorded.nchw(jax.jit(whole)(variables, images))[:1]
    want = arrays["out/eval_logits_after_step"].reshape(got.shape)
    assert_agrees(peer, "logits after a step", got, want, atol=2e-5)


def test_the_neck_matches_the_official_backbone():
    arrays, meta = official.load("official_seg_backbone")
    peer, rest = "oracle official_seg_backbone", {"rtol": 1e-4, "floor": 1e-6}
    taps = tuple(meta["out_indices"])
    given = {"use_rel_pos_bias": True}
    encoder = official.encoder(meta | given, final_norm=False, taps=taps)
    neck, images = Neck(), official.images(arrays)

    def tree(part):
        state = official.group(arrays, "param") | official.group(arrays, part)
        inside = recorded.under(state, **{"": "backbone."})
        # A name of UPerNet's tells that what is there belongs to one.
        inside["decode_head.fpn_bottleneck.conv.weight"] = np.zeros((1, 1, 1, 1))
        found = recorded.variables(inside)
        made = {kind: below["neck"] for kind, below in found.items()}
        own = {name: x for name, x in state.items() if not name.startswith("fpn")}
        return made, official.tree(own, meta["num_heads"])["encoder"]

    variables, params = tree("param")

    def maps(encoder_params, variables, **settings):
        features = encoder.apply({"params": encoder_params}, images)
        return neck.apply(variables, four(features), **settings)

    def loss(encoder_params, neck_params):
        given = variables | {"params": neck_params}
        settings = {"train": True, "mutable": ["batch_stats"]}
        made, after = maps(encoder_params, given, **settings)
        total = sum(
            jnp.sum(x * arrays[f"in/cotangent_{i}"].transpose(0, 2, 3, 1))
            for i, x in enumerate(made)
        )
        return total, after["batch_stats"]

    for i, x in enumerate(jax.jit(maps)(params, variables)):
        want = arrays[f"out/feature_{i}"]
        assert_agrees(peer, "maps", recorded.nchw(x), want, atol=2e-5)
    learn = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (_, by_neck), after = learn(params, variables["params"])
    want = tree("grad")[0]["params"]
    recorded.assert_trees_agree(peer, "gradient", by_neck, want, **rest)
    want = tree("after")[0]["batch_stats"]
    recorded.assert_trees_agree(peer, "mean or variance", after, want, 1e-5, 1e-6)


@pytest.mark.parametrize("name", ["upernet", "setr_pup", "setr_mla"])
def test_maps_of_an_image_of_another_shape_have_its_grid(name):
    """Tables of positions are resized, each side by itself."""
    sizes = {"dim": 8, "depth": 4, "heads": 2, "patch_size": 8}
    form = {"rel_pos_bias": "per_block", "final_norm": False, "taps": (0, 1, 2, 3)}
    encoder = Encoder((4, 4), **sizes, **form)
    net = network.Network(encoder, HEADS[name](5, 8))
    start = functools.partial(network.start, net)
    variables = jax.eval_shape(start, jax.random.key(0), jnp.ones((1, 32, 32, 3)))
    apply = functools.partial(network.apply, net)
    maps, _ = jax.eval_shape(apply, nn.unbox(variables), jnp.ones((2, 24, 48, 3)))
    finer = 16 if name == "setr_pup" else 4
    assert maps.logits.shape == (2, 3 * finer, 6 * finer, 5)


def test_dropout_drops_whole_features_of_an_image():
    x = jnp.ones((2, 3, 3, 64))
    last = Classify(64, 0.5)
    start = nn.unbox(last.init(jax.random.key(0), x))
    start["params"]["kernel"] = jnp.eye(64)[None, None]
    y = last.apply(start, x, train=True, rngs={"dropout": jax.random.key(1)})
    assert set(np.unique(y)) == {0.0, 2.0}
    np.testing.assert_array_equal(y, jnp.broadcast_to(y[:, :1, :1], y.shape))


def test_a_base_at_640_px_has_as_many_parameters_as_the_released_one():
    encoder = Encoder(
        (40, 40),
        **VARIANTS["base"],
        rel_pos_bias="per_block",
        final_norm=False,
        taps=(3, 5, 7, 11),
    )
    net = network.Network(encoder, HEADS["upernet"](150, 768))
    image = jax.ShapeDtypeStruct((1, 640, 640, 3), np.float32)
    start = functools.partial(network.start, net)
    made = jax.eval_shape(start, jax.random.key(0), image)["params"]
    assert sum(x.size for x in jax.tree.leaves(made)) == 163_407_980


@pytest.mark.parametrize(("side", "bins"), [(20, 6), (16, 3), (4, 6), (5, 1)])
def test_pooled_bins_are_means_from_floor_to_ceiling(side, bins):
    x = np.random.default_rng(0).standard_normal((1, side, 2, 3), np.float32)
    got = average_pool(jnp.asarray(x), bins)[:, :, 0]
    ends = [(i * side // bins, -(-(i + 1) * side // bins)) for i in range(bins)]
    across = x[:, :, :1] if bins >= 2 else x.mean(2, keepdims=True)
    want = [across[:, start:end, 0].mean(1) for start, end in ends]
    np.testing.assert_allclose(got, np.stack(want, 1), rtol=1e-5, atol=1e-6)


def test_an_odd_row_is_cut_and_no_grid_of_one_is_halved():
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 3), np.float32)
    want = x[:, :4].reshape(2, 2, 2, 2, 2, 3).max((2, 4))
    np.testing.assert_array_equal(max_pool(jnp.asarray(x)), want)
    with pytest.raises(ValueError, match="a grid of 1x4 patches cannot be halved"):
        max_pool(jnp.zeros((2, 1, 4, 3)))
