"""The compiled step: made from shapes alone, and what a loss may see."""

import gc

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax import sharding, tasks
from beit_jax.checkpoints import frozen
from beit_jax.config import Plan
from beit_jax.data import pipeline
from beit_jax.run import state as state_lib
from beit_jax.run.step import make_update
from beit_jax.run.summary import count_flops
from beit_jax.tasks.base import Aux
from tests import tiny
from tests.tasks import runs


def planned(config):
    """Mesh, task, its `state.abstract`, shapes of frozen networks and of a batch."""
    task = tasks.build(config)
    stream = pipeline.train_stream(config.data, task.train_spec, config.seed)
    mesh = sharding.make_mesh({"data": 1}, jax.devices()[:1])
    spec, plan = sharding.batch_spec(stream.spec, mesh), Plan.from_config(config, 1.0)
    networks = jax.tree.map(
        lambda leaf: leaf.update(sharding=sharding.replicated(mesh)),
        frozen.shapes(task.frozen),
    )
    with jax.set_mesh(mesh):
        plans = state_lib.abstract(task, config, plan, mesh, spec)
    return mesh, task, plans, (networks, spec)


def test_a_step_is_lowered_without_an_array():
    config = tiny.config("pretrain")
    gc.collect()
    before = len(jax.live_arrays())
    mesh, task, plans, (networks, spec) = planned(config)
    with jax.set_mesh(mesh):
        update = make_update(task, plans.optimizer, config, plans.shardings, mesh)
        text = update.lower(plans.state, networks, spec).as_text()
        assert len(jax.live_arrays()) == before
        state = plans.fresh(0)
        weights = jax.device_put(frozen.load(task.frozen), sharding.replicated(mesh))
        assert update.lower(state, weights, spec).as_text() == text
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == plans.shardings


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_a_step_is_exported_for_a_platform_that_is_not_here(platform):
    config = tiny.config("pretrain", dtype="bfloat16")
    mesh, task, plans, shapes = planned(config)
    with jax.set_mesh(mesh):
        update = make_update(task, plans.optimizer, config, plans.shardings, mesh)
        export = jax.export.export(update.step, platforms=[platform])
        made = export(plans.state, *shapes, state_lib.key_shape())
    assert made.platforms == (platform,)
    assert "LayoutConstraint" not in made.mlir_module()


def test_what_is_counted_need_not_be_traced_again():
    config = runs.config("classify", model__depth=1)
    task, params, ctx, batch = runs.start(config)
    traced, train_loss = [], task.train_loss
    task.train_loss = lambda *args: traced.append(1) or train_loss(*args)
    state, update = runs.updating(task, config, params, ctx)
    count_flops(update, state, ctx.frozen, batch)
    once = len(traced)
    update(state, ctx.frozen, batch)
    assert len(traced) == once > 0


class Follows:
    """A task whose parameters follow their own average."""

    def train_loss(self, params, batch, ctx):
        count = jnp.sum(batch["weight"])
        loss = jnp.sum(batch["weight"]) * jnp.sum(params["x"] * ctx.ema["x"])
        return loss / count, Aux({"loss": (loss, count)}, ctx.model_state)


def test_a_loss_sees_the_averaged_weights_and_does_not_move_them():
    config = runs.config("classify", optim__ema_decay=0.5, optim__name="sgd")
    config.optim.update(lr=1.0, weight_decay=0.0, warmup_steps=0, clip_norm=0.0)
    params = {"x": np.array([1.0, -2.0], np.float32)}
    ctx = runs.Context(np.int32(0), jax.random.key(0), {}, {})
    state, update = runs.updating(Follows(), config, params, ctx)
    after, _ = update(state, {}, {"weight": np.ones(4, np.float32)})
    np.testing.assert_allclose(after.params["x"], params["x"] - params["x"])  # x - ema
    np.testing.assert_allclose(after.ema["x"], 0.5 * params["x"])
