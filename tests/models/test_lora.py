"""LoRA and what else trains a few parameters: exact at first, added up when read."""

import jax
import numpy as np
import optax
import pytest

import beit_jax
from beit_jax import config as config_lib
from beit_jax import tasks
from beit_jax.checkpoints.names import flatten
from beit_jax.checkpoints.read import restore
from beit_jax.config import Plan
from beit_jax.evaluate import evaluate
from beit_jax.models.lora import Lora
from beit_jax.optim import optimizers
from beit_jax.train import train
from tests import tiny
from tests.optim import by_name
from tests.tasks import runs

FEW = {"task__lora": {"rank": 2, "alpha": 4.0}, "optim__train": "lora,head,fc_norm"}


def test_a_network_begins_as_it_was():
    plain, params, ctx, batch = runs.start(runs.config("classify"))
    task = tasks.build(runs.config("classify", **FEW))
    lora = Lora(rank=2, alpha=4.0).init(jax.random.key(0), params["encoder"])
    loss, _ = jax.jit(plain.train_loss)(params, batch, ctx)
    with_it, _ = jax.jit(task.train_loss)(params | {"lora": lora}, batch, ctx)
    assert loss == with_it
    assert all(np.any(low["a"]) and not np.any(low["b"]) for low in lora.values())


def test_kernels_get_the_product_of_their_factors():
    task, params, *_ = runs.start(runs.config("classify", **FEW))
    whole = task._whole(params)
    assert "lora" not in whole
    before, after = (tree["encoder"]["blocks"]["attn"] for tree in (params, whole))
    low = params["lora"]["qkv"]
    product = low["a"][1] @ low["b"][1].reshape(2, -1)
    wanted = before["qkv"][1].reshape(32, -1) + 4 / 2 * product
    np.testing.assert_allclose(after["qkv"][1].reshape(32, -1), wanted, atol=1e-6)
    low = params["lora"]["proj"]
    product = low["a"][0].reshape(32, 2) @ low["b"][0]
    wanted = before["proj"]["kernel"][0].reshape(32, 32) + 4 / 2 * product
    got = after["proj"]["kernel"][0].reshape(32, 32)
    np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize("groups", [{}, {"low": {"prefix": "lora", "lr": 1e-2}}])
def test_what_does_not_train_has_no_moments(groups):
    config = runs.config("classify", **FEW, optim__groups=groups)
    _, params, *_ = runs.start(config)
    made = optimizers.make(
        config.optim, Plan.from_config(config, 1.0), params, by_name.layers(params)
    )
    kept = optax.tree.get_all_with_path(made.tx.init(params), "mu")
    names = {name for _, tree in kept for name in flatten(tree)}
    assert {name.split("/")[0] for name in names} == {"lora", "head", "fc_norm"}
    assert len(names) == 4 + 2 + 2


def test_only_what_trains_moves(tmp_path):
    config = tiny.config("classify", **FEW, optim__schedule={"name": "constant"})
    config.steps, config.optim.warmup_steps = 4, 0
    metrics = train(config, tmp_path / "straight", quiet=True)
    arrays = tiny.arrays(tmp_path / "straight", 4)
    start = tiny.config("classify", steps=4, optim__freeze="encoder")
    train(start, tmp_path / "plain", quiet=True)  # its encoder is as it was drawn
    fresh = tiny.arrays(tmp_path / "plain", 4)
    for name, array in arrays.items():
        if name.startswith("params/encoder/"):
            np.testing.assert_array_equal(array, fresh[name], name)
    assert np.any(arrays["params/lora/qkv/b"])

    seen = evaluate(tmp_path / "straight")
    assert seen["eval/loss"] == pytest.approx(metrics["eval/loss"], rel=1e-6)
    assert evaluate(tmp_path / "straight", config) == seen
    saved = restore(tmp_path / "straight")
    assert "lora" not in saved.params and "lora" not in saved.config["task"]
    loaded = beit_jax.load(tmp_path / "straight").variables["params"]["encoder"]
    kernel = loaded["blocks"]["attn"]["qkv"]
    assert np.any(kernel != fresh["params/encoder/blocks/attn/qkv"])


@pytest.mark.slow
def test_a_run_goes_on_with_what_trains(tmp_path):
    config = tiny.config("classify", **FEW, optim__schedule={"name": "constant"})
    for name, parts in {"straight": (4,), "broken": (2, 4)}.items():
        for config.steps in parts:
            config.optim.warmup_steps = 0
            train(config, tmp_path / name, quiet=True)
    straight, broken = (tmp_path / name for name in ("straight", "broken"))
    assert tiny.fingerprint(straight) == tiny.fingerprint(broken)


def test_biases_alone_may_train():
    config = runs.config("classify", optim__train="*bias,head")
    _, params, *_ = runs.start(config)
    plan = Plan.from_config(config, 1.0)
    made = optimizers.make(config.optim, plan, params, by_name.layers(params))
    moves = {name for name, scale in flatten(made.scales).items() if np.any(scale)}
    assert moves == {
        name
        for name in flatten(params)
        if name.startswith("head")
        or "bias" in name.split("/")[-1]
        or "pos_bias" in name
    }


def test_a_pattern_that_is_like_nothing_is_refused():
    config = config_lib.new(optim={"train": "lora,head"}).optim
    params = {"head": {"kernel": np.zeros((2, 2))}}
    plan = Plan(total=2, warmup=0, log=0, save=0)
    with pytest.raises(ValueError, match="optim.train='lora' is like no part of a par"):
        optimizers.make(config, plan, params, by_name.layers(params))


def test_a_rank_must_be_a_length():
    with pytest.raises(ValueError, match="config.task.lora: rank=0 must be at least 1"):
        tasks.build(runs.config("classify", task__lora={"rank": 0}))
