"""Lion, LAMB, Muon and Adafactor by their formulas, each stacked block by itself."""

import jax
import numpy as np
import optax
import pytest
from optax.contrib import muon

from beit_jax import config as config_lib
from beit_jax import sharding
from beit_jax.optim import optimizers, schedules
from beit_jax.optim.optimizers import OPTIMIZERS
from beit_jax.run import state
from beit_jax.run.parts import assemble
from beit_jax.train import train
from tests import tiny
from tests.agreement import assert_agrees
from tests.optim.stacked import PLAN, SETTINGS, SHAPES, STEPS, drawn, leaf, ours, rate


class Lion:
    def __init__(self, decays):
        self.mu = 0

    def __call__(self, grad, weight, step):
        update = np.sign(0.9 * self.mu + 0.1 * grad)
        self.mu = 0.99 * self.mu + 0.01 * grad
        return update


class Lamb:
    def __init__(self, decays):
        self.mu = self.nu = 0
        self.decays = decays

    def __call__(self, grad, weight, step):
        self.mu = 0.9 * self.mu + 0.1 * grad
        self.nu = 0.99 * self.nu + 0.01 * grad**2
        mu, nu = self.mu / (1 - 0.9 ** (step + 1)), self.nu / (1 - 0.99 ** (step + 1))
        update = mu / (np.sqrt(nu) + 1e-6)
        if not self.decays:
            return update
        update = update + 0.1 * weight
        ratio = np.linalg.norm(weight) / np.linalg.norm(update)
        return update * ratio - 0.1 * weight  # which the test adds again


class Adafactor:
    def __init__(self, decays):
        self.rows = self.columns = self.each = 0

    def __call__(self, grad, weight, step):
        keep, square = 1 - (step + 1) ** -0.8, grad**2 + 1e-30
        if grad.shape == (130, 128):
            self.rows = keep * self.rows + (1 - keep) * square.mean(1)
            self.columns = keep * self.columns + (1 - keep) * square.mean(0)
            moment = np.outer(self.rows, self.columns) / self.rows.mean()
        else:
            moment = self.each = keep * self.each + (1 - keep) * square
        update = grad / np.sqrt(moment)
        return update / max(1.0, np.sqrt((update**2).mean()))


@pytest.mark.parametrize("kind", [Lion, Lamb, Adafactor])
def test_an_optimizer_follows_its_formula(kind):
    name = kind.__name__.lower()
    after = ours(name)
    for what in SHAPES:
        decays = not what.endswith("bias")
        for block in range(2):
            rule, weight = kind(decays), leaf(after[0], what)[block]
            for step in range(STEPS):
                update = rule(leaf(drawn(1 + step), what)[block], weight, step)
                update = update + 0.1 * weight * decays
                weight = weight - rate(step) * update
                got = leaf(after[step + 1], what)[block]
                assert_agrees(f"formula of {name}", "a step", got, weight, 1e-4)


MATRICES = {  # name -> from a block's kernel its matrices, as Muon has them
    "attn/qkv": lambda x: [x[:, i].reshape(8, 8) for i in range(3)],
    "attn/proj/kernel": lambda x: [x.reshape(8, 8)],
    "mlp/fc2/kernel": lambda x: [x],
}


def test_muon_moves_each_blocks_matrices_as_optax_does_alone():
    after = ours("muon")
    tx = muon(rate_in_jax, beta=0.95, weight_decay=0.1, consistent_rms=0.2)
    for what, split in MATRICES.items():
        for block in range(2):
            at = [split(leaf(tree, what)[block]) for tree in after]
            grads = [split(leaf(drawn(1 + i), what)[block]) for i in range(STEPS)]
            params = [matrix.astype(np.float32) for matrix in at[0]]
            moments = tx.init(params)
            for step in range(STEPS):
                grad = [matrix.astype(np.float32) for matrix in grads[step]]
                updates, moments = tx.update(grad, moments, params)
                params = optax.apply_updates(params, updates)
                assert_agrees("optax", "muon", at[step + 1], params, 2e-4)


def rate_in_jax(step):
    return schedules.make({"name": "cosine"}, PLAN, SETTINGS["lr"], 0.0)(step)


def test_muon_leaves_all_else_to_adamw():
    both = ours("muon")[-1], ours("adamw")[-1]
    bias, other = (leaf(tree, "mlp/fc1/bias") for tree in both)
    np.testing.assert_allclose(bias, other, rtol=0, atol=1e-7)


def test_muon_is_refused_where_there_are_no_blocks():
    settings = config_lib.new(optim={"name": "muon"}).optim
    with pytest.raises(ValueError, match="optim.name='muon' is for the matrices of an"):
        optimizers.make(settings, PLAN, *2 * ({"kernel": np.zeros((4, 4))},))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_layer_decay_and_freezing_apply_to_every_optimizer(name):
    """With steps of 1, the first of two blocks moves by a half of its own update."""
    whole, halved = (ours(name, layer_decay=decay)[:2] for decay in (1.0, 0.5))
    for what in SHAPES:
        full, half = (leaf(b, what) - leaf(a, what) for a, b in (whole, halved))
        np.testing.assert_allclose(half[0], 0.5 * full[0], rtol=0, atol=2e-6)
        np.testing.assert_allclose(half[1], full[1], rtol=0, atol=2e-6)
    still = ours(name, freeze_blocks=1)
    np.testing.assert_array_equal(*(leaf(t, "attn/qkv")[0] for t in still[::4]))


NEW = ["lion", "lamb", "adafactor", "muon"]


@pytest.mark.parametrize("name", NEW)
def test_moments_lie_with_their_parameters_on_a_mesh(name):
    config = tiny.config("classify", optim__name=name, mesh__fsdp=2)
    parts = assemble(config)
    mesh = sharding.make_mesh(config.mesh, jax.devices() * 2)
    spec = sharding.batch_spec(parts.stream.spec, mesh)
    plans = state.abstract(parts.task, config, parts.plan, mesh, spec).state
    where = plans.params["encoder"]["blocks"]["mlp"]["fc1"]["kernel"]
    assert "fsdp" in str(where.sharding.spec)
    alike = [
        leaf.sharding.spec == where.sharding.spec
        for leaf in jax.tree.leaves(plans.opt_state)
        if leaf.shape == where.shape
    ]
    assert alike and all(alike)


@pytest.mark.slow
@pytest.mark.parametrize("name", NEW)
def test_a_run_goes_on_with_its_moments(name, tmp_path):
    changes = {"optim__name": name, "optim__ema_decay": 0.0, "optim__accumulate": 1}
    changes |= {"optim__layer_decay": 0.75, "optim__warmup_steps": 0}
    groups = {"head": {"prefix": "head", "name": "adamw"}}
    changes |= {"optim__groups": groups, "data__eval_source": {}}
    schedule = {"optim__schedule": {"name": "constant"}}
    config = tiny.config("classify", **changes, **schedule)
    config.steps = 4
    train(config, tmp_path / "straight", quiet=True)
    config.steps = 2
    train(config, tmp_path / "broken", quiet=True)
    config.steps = 4
    train(config, tmp_path / "broken", quiet=True)
    assert tiny.fingerprint(tmp_path / "straight") == tiny.fingerprint(
        tmp_path / "broken"
    )
