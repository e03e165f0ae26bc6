"""Schedule, decay mask, clipping, and the official numbers that are kept here.

tests/golden/optim.json holds some, for where the recordings are not.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beit_jax import config as config_lib
from beit_jax.checkpoints.names import flatten, nest
from beit_jax.config import Plan
from beit_jax.models.vqvae import VQVAE
from beit_jax.optim import layers, optimizers, schedules
from tests.models import official
from tests.optim import by_name

GOLDEN = json.loads(
    (pathlib.Path(__file__).parents[1] / "golden" / "optim.json").read_text()
)

COSINE = {"name": "cosine"}


def plan(total: int, warmup: int) -> Plan:
    return Plan(total=total, warmup=warmup, log=0, save=0)


def rates(steps, settings: dict) -> np.ndarray:
    """Learning rates in float64, of the official scheduler's settings."""
    per_epoch = settings["niter_per_ep"]
    warmup = settings.get("warmup_steps") or settings["warmup_epochs"] * per_epoch
    length = plan(settings["epochs"] * per_epoch, warmup)
    peak, final = settings["base_value"], settings["final_value"]
    return schedules.make(COSINE, length, peak, final)(np.asarray(steps), xp=np)


def test_the_schedule_has_the_official_values():
    settings = GOLDEN["schedule"]["settings"]
    steps = [int(step) for step in GOLDEN["schedule"]["rates"]]
    wanted = list(GOLDEN["schedule"]["rates"].values())
    np.testing.assert_allclose(rates(steps, settings), wanted, rtol=1e-12)


def test_the_last_epochs_mean_rate_is_the_official_one():
    last = rates(np.arange(299 * 625, 300 * 625), GOLDEN["schedule"]["settings"])
    np.testing.assert_allclose(last.mean(), 1.0014606556e-05, rtol=1e-10)


@pytest.mark.parametrize("name", ["lr_warm_epochs", "lr_warm_steps", "lr_no_warm"])
def test_whole_schedules_match_the_official_recordings(name):
    arrays, meta = official.load("optim")
    wanted = arrays[f"schedule/{name}"]
    got = rates(np.arange(len(wanted)), meta["schedules"][name])
    np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_a_long_schedule_matches_the_official_recording():
    arrays, meta = official.load("optim")
    recorded = official.group(arrays, "schedule")
    name, end = "long_300x625", 300 * 625
    steps = {
        "every_100": np.arange(0, end, 100),
        "around_warmup_end": np.arange(10 * 625 - 3, 10 * 625 + 3),
        "last": np.arange(end - 5, end),
    }
    for part, at in steps.items():
        wanted = recorded[f"{name}__{part}"]
        got = rates(at, meta["schedules"][name])
        np.testing.assert_allclose(got, wanted, rtol=1e-12, err_msg=part)
    mean = rates(np.arange(end - 625, end), meta["schedules"][name]).mean()
    wanted = recorded[f"{name}__last_epoch_mean"]
    np.testing.assert_allclose(mean, wanted, rtol=1e-12)


def test_the_schedule_on_the_device_is_near_the_exact_one():
    length, steps = plan(187_500, 6250), np.array([0, 1, 6249, 6250, 90_000, 187_499])
    rate = schedules.make(COSINE, length, 1.5e-3, 1e-5)
    exact = rate(steps, xp=np)
    got = jax.vmap(rate)(steps)
    np.testing.assert_allclose(got, exact, rtol=2e-4)  # the cosine ends in a difference


def test_layer_scales_have_the_official_values():
    golden = GOLDEN["layer_scales"]
    params = {
        "patch_embed": {"proj": {"bias": jnp.zeros(2)}},
        "blocks": {"norm1": {"scale": jnp.zeros((12, 5))}},
        "head": {"kernel": jnp.zeros((2, 2))},
    }
    scales = layers.layer_scales(by_name.layers(params), golden["layer_decay"])
    blocks = scales["blocks"]["norm1"]["scale"]
    assert blocks.shape == (12, 1)
    np.testing.assert_allclose(blocks[:, 0], golden["blocks"], rtol=1e-7)
    embeddings = scales["patch_embed"]["proj"]["bias"]
    np.testing.assert_allclose(embeddings, golden["embeddings"], rtol=1e-7)
    assert scales["head"]["kernel"] == golden["rest"]


def test_layer_decay_without_blocks_is_refused():
    with pytest.raises(ValueError, match="layer_decay=0.5 needs an encoder"):
        layers.layer_scales({"conv": {"kernel": np.array(0)}}, 0.5)


def test_decay_spares_vectors_and_positions_but_no_tables():
    """Of the names in an encoder with everything; stacked vectors are 2-D here."""
    spared = ["cls_token", "pos_embed", "head/bias", "fc_norm/scale", "norm/bias"]
    spared += [f"blocks/{name}" for name in ("gamma_1", "gamma_2", "norm1/scale")]
    spared += [f"blocks/attn/{name}" for name in ("q_bias", "v_bias", "proj/bias")]
    decayed = ["mask_token", "rel_pos_bias/table", "head/kernel", "blocks/attn/qkv"]
    decayed += ["blocks/attn/rel_pos_bias/table", "patch_embed/proj/kernel"]
    params = nest({name: np.zeros((2, 3)) for name in spared + decayed})
    mask = flatten(optimizers.decay_mask(params))
    assert mask == dict.fromkeys(spared, False) | dict.fromkeys(decayed, True)


def test_codes_that_learn_by_gradient_do_not_decay():
    init, image = VQVAE(learning="gradient").init, jnp.zeros((1, 8, 8, 3))
    mask = optimizers.decay_mask(
        jax.eval_shape(init, jax.random.key(0), image)["params"]
    )
    assert mask["quantizer"] == {"embedding": False}
    assert mask["encoder"]["block_0"]["conv3x3"]["kernel"]


def test_clipping_scales_by_pytorchs_rule():
    grads = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([4.0])}
    clipped, _ = optimizers.clip(1.0).update(grads, optax.EmptyState())
    np.testing.assert_allclose(clipped["a"], [3 / (5 + 1e-6), 0], rtol=1e-6)
    same, _ = optimizers.clip(6.0).update(grads, optax.EmptyState())
    np.testing.assert_array_equal(same["b"], grads["b"])


@pytest.mark.parametrize("changed", [{"clip_norm": 0.0}, {"layer_decay": 1.0}])
def test_every_stage_of_the_optimizer_changes_its_updates(changed):
    params = {
        "encoder": {"blocks": {"fc1": {"kernel": jnp.ones((2, 3, 3))}}},
        "cls_token": jnp.ones(3),
    }
    settings = config_lib.defaults().optim
    settings.update(clip_norm=1.0, layer_decay=0.5, eps=1e-1)

    def step(settings):
        tx = optimizers.make(settings, plan(4, 0), params, by_name.layers(params)).tx
        update = jax.jit(lambda params: tx.update(params, tx.init(params), params)[0])
        return update(params)["cls_token"]

    before = step(settings)
    settings.update(changed)
    assert not np.allclose(step(settings), before, rtol=1e-3)


def test_a_schedule_may_end_before_the_run():
    length = plan(100, 10)._replace(decay=60)
    rate = schedules.make(COSINE, length, 1.0, 0.2)
    got = rate(np.array([9, 35, 60, 99]), xp=np)
    np.testing.assert_allclose(got, [1.0, 0.6, 0.2, 0.2], rtol=1e-12)


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({"name": "poly", "power": 2.0}, [0, 1.0, 1.0, 0.4, 0.208]),
        ({"name": "steps", "milestones": (60, 90)}, [0, 1.0, 1.0, 0.1, 0.01]),
        ({"name": "constant"}, [0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_every_schedule_warms_up_and_then_goes_its_way(spec, wanted):
    rate = schedules.make(spec, plan(110, 10), 1.0, 0.2)
    steps = np.array([0, 9, 10, 60, 100])
    np.testing.assert_allclose(rate(steps, xp=np), wanted, rtol=1e-12)
    np.testing.assert_allclose(rate(steps), wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"name": "cosin"}, "no 'cosin' in optim.schedule"),
        ({"name": "poly", "power": 0.0}, "power=0.0 must be above 0"),
        ({"name": "steps", "milestones": ()}, "use the schedule 'constant'"),
        ({"name": "steps", "milestones": (5,), "factor": 0.0}, "factor=0.0"),
        ({"name": "cosine", "power": 2.0}, "takes no setting 'power'"),
    ],
)
def test_schedules_that_cannot_be_are_refused(spec, told):
    with pytest.raises(ValueError, match=told):
        schedules.make(spec, plan(10, 0), 1.0, 0.0)
