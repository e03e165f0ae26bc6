"""The encoder that a config describes, and weights that others have trained."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax import config as config_lib
from beit_jax import tasks
from beit_jax.models import positions
from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.tasks import encoders
from tests.agreement import assert_agrees
from tests.models import official
from tests.optim import by_name
from tests.tasks import runs

GIVEN = {"pretrain": {"mask_token": True}, "classify": {"final_norm": False}}


def build(task: str = "classify", **model):
    """What `encoders.build` makes for that task."""
    return encoders.build(config_lib.new(model=model), **GIVEN[task])


def count(task: str, **model) -> int:
    """Parameters of encoder and head, of 8192 tokens or 1000 classes."""
    encoder, size, _ = build(task, **model)
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    params = nn.unbox(jax.eval_shape(encoder.init, jax.random.key(0), image))["params"]
    outputs, norm = (8192, 0) if task == "pretrain" else (1000, 2 * encoder.dim)
    head = encoder.dim * outputs + outputs + norm
    return head + sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    "task, variant, size, published",
    [
        ("pretrain", "base", 224, 91_965_776),
        ("classify", "base", 224, 86_530_984),
        ("classify", "large", 512, 305_674_728),
    ],
)
def test_released_networks_have_the_published_numbers_of_parameters(
    task, variant, size, published
):
    model = {"variant": variant, "preset": "released", "image_size": size}
    assert count(task, **model) == published


@pytest.mark.parametrize(
    "variant, dim, depth",
    [("tiny", 192, 12), ("small", 384, 12), ("base", 768, 12), ("large", 1024, 24)],
)
def test_plain_networks_have_the_parameters_of_a_plain_vit(variant, dim, depth):
    attention = 3 * dim * dim + 2 * dim + dim * dim + dim  # no bias of the keys
    mlp = 2 * 4 * dim * dim + 4 * dim + dim
    blocks = depth * (attention + mlp + 2 * 2 * dim)  # and two norms, no gammas
    embedding = 3 * 16 * 16 * dim + dim + (1 + 14 * 14) * dim  # patches, positions
    model = {"variant": variant, "preset": "paper_plain", "image_size": 224}
    fine_tuned = embedding + dim + blocks + 2 * dim + 1000 * dim + 1000
    assert count("classify", **model) == fine_tuned
    pretrained = embedding + 2 * dim + blocks + 2 * dim + 8192 * dim + 8192
    assert count("pretrain", **model) == pretrained


@pytest.mark.parametrize(
    "task, variant, preset, wanted",
    [
        ("pretrain", "base", "released", ("none", "shared", 0.1)),
        ("classify", "small", "released", ("none", "per_block", 0.1)),
        ("classify", "large", "released", ("none", "per_block", 1e-5)),
        ("pretrain", "large", "paper_plain", ("learned", "none", 0.0)),
    ],
)
def test_presets_are_the_published_networks(task, variant, preset, wanted):
    encoder, _, _ = build(task, variant=variant, preset=preset, image_size=224)
    got = encoder.abs_pos_embed, encoder.rel_pos_bias, encoder.layer_scale
    assert got == wanted


def test_what_a_config_says_wins_over_its_variant_and_preset():
    encoder, _, _ = build(
        variant="base", preset="released", image_size=64, depth=3, layer_scale=0.5
    )
    assert (encoder.dim, encoder.depth, encoder.layer_scale) == (768, 3, 0.5)


def test_without_a_preset_the_encoders_own_defaults_hold():
    encoder, _, _ = build(variant="tiny", image_size=64)
    assert encoder.rel_pos_bias == "shared" and encoder.abs_pos_embed == "none"


def test_weights_start_as_the_task_starts_them_officially():
    for task, start in (("pretrain", "pretrain"), ("classify", "finetune")):
        assert build(task, variant="tiny", image_size=64)[0].init_as == start
    asked = build("classify", variant="tiny", image_size=64, init_as="pretrain")
    assert asked[0].init_as == "pretrain"


def classify(**model):
    """A tiny run of classification with another model."""
    config = runs.config("classify")
    config.model = dict(config.model) | model  # anew, for values of other types
    return config


@pytest.mark.parametrize("size", [(64, 32), [64, 32]])
def test_images_may_be_wider_or_higher(size):
    encoder, size, _ = build(variant="tiny", image_size=size)
    assert size == (64, 32) and encoder.grid == (4, 2)
    task, params, ctx, batch = runs.start(classify(image_size=(16, 32)))
    assert batch["image"].shape == (4, 16, 32, 3)
    loss, _ = jax.jit(task.train_loss)(params, batch, ctx)
    assert np.isfinite(loss)


@pytest.mark.parametrize(
    "model, message",
    [
        ({"variant": "huge"}, "no 'huge' in config.model.variant.*base, large, small"),
        ({"preset": "paper"}, "no 'paper' in config.model.preset.*paper_plain, rel"),
        ({"image_size": (32, 40)}, r"\(32, 40\) must be a multiple.* \(32, 32\) for"),
        ({"image_size": 40}, "image_size=40 must be a multiple .*16, 32 for example"),
        ({"image_size": (32, 0)}, r"image_size=\(32, 0\) must be pixels"),
        ({"image_size": (32, 32, 3)}, "must be a side, or height and width"),
        ({"abs_pos_embed": True}, "abs_pos_embed=True must be of type str"),
    ],
)
def test_models_that_there_are_not_are_refused_in_words(model, message):
    with pytest.raises(ValueError, match=message):
        build(**{"variant": "tiny", "image_size": 32} | model)


@pytest.mark.parametrize("kind", ["shared", "per_block"])
def test_adapted_weights_of_smaller_images_encode_as_without(kind):
    """Tables are resized when weights are loaded, or else when they are used."""
    config = classify(rel_pos_bias=kind)
    small, (_, params, _, _) = tasks.build(config), runs.start(config)
    large = tasks.build(classify(rel_pos_bias="per_block", image_size=(48, 64)))
    image = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), np.uint8)
    image = PIXEL_SPACES["half"].to_float(image)

    def encode(task, params):
        apply = jax.jit(task.encoder.apply)
        return apply({"params": params["encoder"]}, image).tokens

    adapted = large.adapt(params, config.model)
    np.testing.assert_allclose(
        encode(large, adapted), encode(small, params), rtol=0, atol=1e-5
    )
    assert adapted["head"] is params["head"]


def adapted(other, **model):
    """Parameters of a tiny classifier of `other` settings, for one of `model`."""
    config = classify(**other)
    _, params, _, _ = runs.start(config)
    return tasks.build(classify(**model)).adapt(params, config.model)["encoder"]


def test_positions_that_were_fixed_become_a_table_to_learn():
    fixed = {"abs_pos_embed": "sincos", "rel_pos_bias": "none"}
    learned = fixed | {"abs_pos_embed": "learned", "image_size": (48, 64)}
    table = positions.resize_embedding(positions.sincos((4, 4), 32), (4, 4), (6, 8))
    np.testing.assert_array_equal(adapted(fixed, **learned)["pos_embed"], table)
    assert "pos_embed" not in adapted(fixed, **fixed)
    with pytest.raises(ValueError, match="of 4x4 patches, which 6x8 would be other"):
        adapted(fixed, **learned | {"abs_pos_embed": "sincos"})


def test_tables_of_the_blocks_become_a_shared_one_only_if_they_agree():
    own, shared = {"rel_pos_bias": "per_block"}, {"rel_pos_bias": "shared"}
    with pytest.raises(ValueError, match="which of them all .* set model.rel_pos_bias"):
        adapted(own, **shared)
    config = classify(**own)
    _, params, _, _ = runs.start(config)
    bias = params["encoder"]["blocks"]["attn"]["rel_pos_bias"]
    bias["table"] = bias["table"][:1].repeat(len(bias["table"]), 0)
    made = tasks.build(classify(**shared)).adapt(params, config.model)["encoder"]
    np.testing.assert_array_equal(made["rel_pos_bias"]["table"], bias["table"][0])


@pytest.mark.parametrize("change", [{"depth": 0}, {"drop_path": 1.0}])
def test_numbers_that_cannot_be_are_refused(change):
    with pytest.raises(ValueError, match="depth=0 must be|drop_path=1.0 must be"):
        runs.start(classify(**change))


@pytest.mark.parametrize("oracle", ["finetune_v1", "finetune_v1_cls"])
def test_features_of_the_blocks_are_those_of_the_official_linear_probe(oracle):
    arrays, meta = official.load(oracle)
    params = official.tree(official.group(arrays, "param"), meta["num_heads"])
    encoder = official.encoder(meta, taps=(), final_norm="norm" in params["encoder"])
    with jax.default_matmul_precision("highest"):
        got = jax.jit(encoders.block_features, static_argnums=(0, 3))(
            encoder, params["encoder"], official.images(arrays), "concat"
        )
    hidden = np.stack([arrays[f"out/block_{i}"] for i in range(encoder.depth)])
    want = np.concatenate([hidden[:, :, 0], hidden[:, :, 1:].mean(2)], axis=-1)
    assert_agrees(f"oracle {oracle}", "linear-probe features", got, want, atol=2e-5)


def test_concatenated_features_are_cls_and_the_mean_of_the_patches():
    task, params, _, batch = runs.start(classify())
    image = PIXEL_SPACES["half"].to_float(batch["image"])

    @jax.jit
    def every_kind(params):
        kinds = encoders.FEATURES
        return [encoders.block_features(task.encoder, params, image, k) for k in kinds]

    cls, mean, both = every_kind(params["encoder"])
    assert cls.shape == mean.shape == (2, 4, 32) and cls.dtype == np.float32
    np.testing.assert_array_equal(both, np.concatenate([cls, mean], axis=-1))
    with pytest.raises(ValueError, match=r"'max' are none of \('cls', 'mean', 'conc"):
        encoders.block_features(task.encoder, params["encoder"], image, "max")


def test_attention_maps_are_the_rows_of_their_queries_as_grids():
    task, params, _, batch = runs.start(classify(image_size=(16, 24)))
    image, encoder = PIXEL_SPACES["half"].to_float(batch["image"]), task.encoder
    every = encoder.clone(attends=tuple(range(1 + 2 * 3)))

    @jax.jit
    def both(params):
        maps = encoders.attention_maps(encoder, params, image, patch=(1, 0))
        return maps, every.apply({"params": params}, image).attention

    maps, weights = both(params["encoder"])
    for name, query in (("cls", 0), ("patch", 4)):
        want = weights[:, :, :, query, 1:].swapaxes(0, 1).reshape(4, 2, 4, 2, 3)
        np.testing.assert_allclose(maps[name], want, rtol=1e-5)
    with pytest.raises(ValueError, match="no patch in row 2, .*: there are 2x3, count"):
        encoders.attention_maps(encoder, params["encoder"], image, (2, 0))


class Decoder(nn.Module):
    """A head with blocks of its own, as MAE's decoder has them."""

    classes: int

    @nn.compact
    def __call__(self, features, *, train=False):
        table = self.param("blocks", nn.initializers.ones, (3, 32, self.classes))
        stats = self.variable("batch_stats", "mean", jnp.zeros, (32,))
        mean = features.last.patches.mean(1)
        if train:
            stats.value = mean.mean(0)
        return (mean - stats.value) @ table.sum(0)


@pytest.fixture
def decoding(monkeypatch):
    """A classifier's config whose head is `Decoder`."""
    monkeypatch.setitem(encoders.HEADS, "decoder", Decoder)
    return runs.config("classify", task__head={"name": "decoder"})


def test_layers_are_those_of_the_encoder_and_a_head_is_above_them(decoding):
    task, params, _, _ = runs.start(runs.config("classify"))
    jax.tree.map(
        np.testing.assert_array_equal, task.layers(params), by_name.layers(params)
    )
    task, params, _, _ = runs.start(decoding)
    made = task.layers(params)
    assert made["blocks"].ravel().tolist() == [3] * 3  # a number for each, one layer
    assert made["encoder"]["cls_token"] == 0
    assert made["encoder"]["blocks"]["norm1"]["scale"].ravel().tolist() == [1, 2]


def test_a_recipe_names_a_head_that_keeps_statistics(decoding):
    task, params, ctx, batch = runs.start(decoding)
    assert {*params} == {"encoder", "blocks"}
    assert {*ctx.model_state["batch_stats"]} == {"mean"}
    (_, aux), grads = jax.jit(jax.value_and_grad(task.train_loss, has_aux=True))(
        params, batch, ctx
    )
    assert np.abs(grads["blocks"]).max() > 0
    moved = aux.model_state["batch_stats"]["mean"]
    assert np.abs(moved - ctx.model_state["batch_stats"]["mean"]).max() > 0
    assert task.eval_step(params, batch, ctx)["nll"].shape == (4,)


def test_a_head_or_a_backbone_that_there_is_not_is_told():
    for key, name, words in (
        ("task__head", {"name": "lineer"}, "no 'lineer' in beit_jax.heads; it has"),
        ("model", {"name": "vitt", "image_size": 32}, "no 'vitt' in beit_jax.models"),
    ):
        with pytest.raises(ValueError, match=words):
            tasks.build(runs.config("classify", **{key: name}))


def test_visible_patches_are_encoded_as_if_there_were_no_others():
    """With absolute positions they know where they are, whatever else there is."""
    model = {"abs_pos_embed": "learned", "rel_pos_bias": "none"}
    encoder, _, _ = build(variant="tiny", image_size=32, depth=2, **model)
    image = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    params = nn.unbox(encoder.init(jax.random.key(0), image))
    index = np.array([[3, 1], [0, 2]])
    some = encoder.apply(params, image, visible=index)
    assert some.last.patches.shape == (2, 2, 192)
    every = encoder.apply(params, image, visible=np.tile(np.arange(4), (2, 1)))
    np.testing.assert_allclose(
        every.tokens, encoder.apply(params, image).tokens, atol=1e-5
    )
    other = image.copy()
    other[0, :16, :16] += 1  # patch 0 of the first image, which is not visible
    again = encoder.apply(params, other, visible=index)
    np.testing.assert_array_equal(again.last.patches, some.last.patches)
    with pytest.raises(ValueError, match="visible patches need rel_pos_bias='none'"):
        shared = encoder.clone(rel_pos_bias="shared")
        shared.init(jax.random.key(0), image, visible=index)
