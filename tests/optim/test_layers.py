"""Freezing: what rests does not move, is not counted, and costs no backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beit_jax import config as config_lib
from beit_jax.checkpoints.names import flatten, nest
from beit_jax.optim import layers
from beit_jax.run.summary import count_flops
from beit_jax.tasks.base import Aux, Context
from tests.optim import by_name
from tests.tasks import runs

SHAPES = {
    "encoder/cls_token": (1, 1, 3),
    "encoder/patch_embed/proj/kernel": (4, 3),
    "encoder/rel_pos_bias/table": (5, 2),
    "encoder/blocks/norm1/scale": (3, 4),
    "encoder/blocks/mlp/fc1/kernel": (3, 4, 8),
    "encoder_b/kernel": (2,),
    "head/kernel": (4, 2),
}
PARAMS = nest({name: np.ones(shape) for name, shape in SHAPES.items()})


def trained(freeze: str = "", freeze_blocks: int = 0) -> dict[str, list[float]]:
    """Path -> the factor, or those of the blocks."""
    made = flatten(
        layers.trained(PARAMS, by_name.layers(PARAMS), freeze, freeze_blocks)
    )
    return {name: factor.ravel().tolist() for name, factor in made.items()}


def test_a_prefix_freezes_whole_parts_of_paths():
    frozen = {
        name for name, at in trained("encoder,head/kernel").items() if not any(at)
    }
    assert frozen == {name for name in SHAPES if name != "encoder_b/kernel"}
    assert trained()["encoder/cls_token"] == [1]


def test_the_first_blocks_are_frozen_with_what_is_below_them():
    made = trained(freeze_blocks=2)
    assert made["encoder/blocks/mlp/fc1/kernel"] == [0, 0, 1]
    assert made["encoder/cls_token"] == made["encoder/patch_embed/proj/kernel"] == [0]
    assert made["encoder/rel_pos_bias/table"] == made["head/kernel"] == [1]


def test_layers_that_rest_have_no_share_in_layer_wise_decay():
    settings = config_lib.defaults().optim
    settings.update(layer_decay=0.5, freeze_blocks=1)
    made = layers.scales(settings, PARAMS, by_name.layers(PARAMS))["encoder"]
    np.testing.assert_array_equal(
        made["blocks"]["norm1"]["scale"], [[0], [0.25], [0.5]]
    )
    assert made["cls_token"] == 0 and made["rel_pos_bias"]["table"] == 1


@pytest.mark.parametrize(
    "freeze, freeze_blocks, message",
    [
        ("encodr", 0, "freeze='encodr': no parameter is or beg.* mean 'encoder'"),
        ("head,encoder/block", 0, "'encoder/block': .* mean 'encoder/blocks'"),
        ("", 4, "freeze_blocks=4, but the model has 3 blocks"),
        ("encoder,encoder_b,head", 0, "leaves nothing to train; python -m"),
    ],
)
def test_what_cannot_be_frozen_is_refused(freeze, freeze_blocks, message):
    with pytest.raises(ValueError, match=message):
        layers.trained(PARAMS, by_name.layers(PARAMS), freeze, freeze_blocks)


def test_a_model_without_blocks_has_none_to_freeze():
    bare = {"conv": {"kernel": np.ones(3)}}
    with pytest.raises(
        ValueError, match="freeze_blocks=1, but the model has no blocks"
    ):
        layers.trained(bare, by_name.layers(bare), "", 1)


def test_what_is_held_takes_no_gradient_and_the_rest_its_own():
    made = layers.trained(PARAMS, by_name.layers(PARAMS), "head", 2)

    def loss(params):
        return sum(jnp.sum(leaf**3) for leaf in jax.tree.leaves(params))

    got = jax.jit(jax.grad(lambda params: loss(layers.hold(params, made))))(PARAMS)
    jax.tree.map(
        np.testing.assert_array_equal,
        got,
        jax.tree.map(lambda p, f: 3 * p * f, PARAMS, made),
    )


class Cubes:
    """A task in which every parameter has a gradient, and which compiles at once."""

    def train_loss(self, params, batch, ctx):
        cubes = sum(jnp.sum(leaf**3) for leaf in jax.tree.leaves(params))
        loss, count = jnp.sum(batch["weight"] * cubes), jnp.sum(batch["weight"])
        return loss / count, Aux({"loss": (loss, count)}, ctx.model_state)


@pytest.fixture(scope="module")
def rested():
    """(parameters, the state 3 steps later) of a run with two frozen blocks."""
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.random(x.shape, np.float32), PARAMS)
    config = config_lib.new(steps=4)
    config.optim.update(
        accumulate=2, ema_decay=0.9, weight_decay=0.5, freeze="head", freeze_blocks=2
    )
    ctx = Context(np.int32(0), jax.random.key(0), {}, {})
    now, update = runs.updating(Cubes(), config, params, ctx)
    for _ in range(3):
        now, _ = update(now, {}, {"weight": np.ones(4, np.float32)})
    return params, jax.device_get(now)


def test_what_is_frozen_does_not_move_by_a_bit(rested):
    params, now = rested
    made = flatten(layers.trained(params, by_name.layers(params), "head", 2))
    for which in (now.params, now.ema):
        for name, leaf in flatten(which).items():
            before, trains = flatten(params)[name], made[name] > 0
            moved = leaf.view(np.int32) != before.view(np.int32)
            assert not np.any(moved & ~trains), name
            if np.any(trains):
                assert np.any(moved), name


def test_what_is_frozen_gives_no_gradient_to_be_clipped(rested):
    moments = flatten(optax.tree.get(rested[1].opt_state, "mu"))
    assert not np.any(moments["head/kernel"])
    blocks = moments["encoder/blocks/mlp/fc1/kernel"]
    assert not np.any(blocks[:2]) and np.all(blocks[2])


def test_a_frozen_encoder_costs_a_forward_pass():
    def step_and_forward(**changes):
        config = runs.config("classify", **changes)
        task, params, ctx, batch = runs.start(config)
        now, update = runs.updating(task, config, params, ctx)
        forward = count_flops(task.train_loss, params, batch, ctx)
        return count_flops(update, now, ctx.frozen, batch) / forward

    assert step_and_forward() == pytest.approx(3, rel=0.05)
    assert step_and_forward(optim__freeze="encoder") == pytest.approx(1, rel=0.05)
