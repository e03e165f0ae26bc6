"""The compiled step: made from shapes alone, and what a loss may see."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax import sharding, tasks
from beit_jax.checkpoints import frozen
from beit_jax.config import Plan
from beit_jax.data import pipeline
from beit_jax.run import state as state_lib
from beit_jax.run.step import make_update
from beit_jax.tasks.base import Aux
from tests import tiny
from tests.tasks import runs

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def test_a_step_is_lowered_without_an_array():
    config = tiny.config("pretrain")
    task = tasks.build(config)
    stream = pipeline.train_stream(config.data, task.train_spec, config.seed)
    mesh = sharding.make_mesh({"data": 1}, jax.devices()[:1])
    spec, plan = sharding.batch_spec(stream.spec, mesh), Plan.from_config(config, 1.0)
    everywhere = sharding.replicated(mesh)
    networks = jax.tree.map(
        lambda leaf: leaf.update(sharding=everywhere), frozen.shapes(task.frozen)
    )
    gc.collect()
    before = len(jax.live_arrays())
    with jax.set_mesh(mesh):
        plans = state_lib.abstract(task, config, plan, mesh, spec)
        update = make_update(task, plans.optimizer, config, plans.shardings, mesh)
        text = update.lower(plans.state, networks, spec).as_text()
        assert len(jax.live_arrays()) - before <= 1  # the key
        state, shardings, _ = state_lib.create(task, config, plan, mesh, spec)
        weights = jax.device_put(frozen.load(task.frozen), everywhere)
        assert update.lower(state, weights, spec).as_text() == text
    assert shardings == plans.shardings


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
