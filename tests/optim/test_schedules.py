"""Schedule, decay mask, clipping, and the official numbers that are kept here.

tests/golden/optim.json holds some, for where the recordings are not.
"""

import json
import math
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
    epochs = settings.get("warmup_epochs", 0)
    warmup = settings.get("warmup_steps") or epochs * per_epoch
    length = plan(settings["epochs"] * per_epoch, warmup)
    peak, final = settings["base_value"], settings["final_value"]
    start = settings.get("start_warmup_value", 0.0)
    rate = schedules.make(COSINE, length, peak, final, start)
    return rate(np.asarray(steps), xp=np)


def test_the_schedule_has_the_official_values():
    settings = GOLDEN["schedule"]["settings"]
    steps = [int(step) for step in GOLDEN["schedule"]["rates"]]
    wanted = list(GOLDEN["schedule"]["rates"].values())
    np.testing.assert_allclose(rates(steps, settings), wanted, rtol=1e-12)


def test_the_last_epochs_mean_rate_is_the_official_one():
    last = rates(np.arange(299 * 625, 300 * 625), GOLDEN["schedule"]["settings"])
    np.testing.assert_allclose(last.mean(), 1.0014606556e-05, rtol=1e-10)


@pytest.mark.parametrize(
    "name",
    ["lr_warm_epochs", "lr_warm_steps", "lr_no_warm", "lr_start_value"]
    + ["wd_const", "wd_cos"],
)
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
    got, exact = jax.vmap(rate)(steps), rate(steps, xp=np)
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


STEPS = {"name": "steps", "milestones": (40, 80), "factor": 0.5}
# Schedule -> its value at steps 9, 10, 39, 40, 55, 80 and 99 of 100 after a warm-up of
# 10 to 2.0; the least is 0.2.
CLOSED_FORMS = [
    ({"name": "constant"}, [2.0] * 7),
    (STEPS, [2.0, 2.0, 2.0, 1.0, 1.0, 0.5, 0.5]),
    (
        {"name": "poly"},
        [2.0, 2.0, *(0.2 + 1.8 * n / 90 for n in (61, 60, 45, 20, 1))],
    ),
    (
        {"name": "poly", "power": 0.9},
        [2.0, 2.0, *(0.2 + 1.8 * (n / 90) ** 0.9 for n in (61, 60, 45, 20, 1))],
    ),
    (
        COSINE,
        [2.0, 2.0]
        + [0.2 + 0.9 * (1 + math.cos(math.pi * n / 90)) for n in (29, 30, 45, 70, 89)],
    ),
]


@pytest.mark.parametrize("settings, wanted", CLOSED_FORMS)
def test_a_schedule_has_its_closed_form_after_the_same_warm_up(settings, wanted):
    rate = schedules.make(settings, plan(100, 10), 2.0, 0.2, 0.02)
    at = np.array([9, 10, 39, 40, 55, 80, 99])
    np.testing.assert_allclose(rate(at, xp=np), wanted, rtol=1e-6)
    np.testing.assert_allclose(rate(np.arange(10), xp=np), np.linspace(0.02, 2, 10))
    np.testing.assert_allclose(jax.vmap(rate)(at), wanted, rtol=1e-5)


def test_every_schedule_has_its_closed_form_tested():
    assert {form["name"] for form, _ in CLOSED_FORMS} == schedules.SCHEDULES.keys()


def test_poly_is_that_of_mmsegmentation_but_for_a_step():
    """PolyLR of 1.x after its warm-up, by its recursion over 159 steps of 160."""
    rate, wanted, last = 1.0, [], 150 - 1
    for step in range(150):
        if step:
            share = (1 - 1 / (last - step + 1)) ** 0.9
            rate = (rate - 0.01) * share + 0.01
        wanted.append(rate)
    made = schedules.make({"name": "poly", "power": 0.9}, plan(159, 10), 1.0, 0.01)
    np.testing.assert_allclose(made(np.arange(10, 160), xp=np), wanted, atol=1e-12)


@pytest.mark.parametrize(
    "settings, message",
    [
        ("poly", "optim.schedule: 'poly' must be a section"),
        ({"name": "linear"}, "no 'linear' in optim.schedule; it has constant, cos"),
        ({"name": "cosine", "power": 2.0}, "optim.schedule 'cosine' takes no setting"),
        ({"name": "poly", "powr": 2.0}, "'powr'; did you mean 'power'"),
        ({"name": "poly", "power": 0.0}, "power=0.0 must be above 0"),
        ({"name": "steps"}, "'steps' needs a setting 'milestones'"),
        ({"name": "steps", "milestones": ()}, "use the schedule 'constant'"),
        ({"name": "steps", "milestones": (0.5,)}, r"\(0.5,\) must be optimizer steps"),
        ({"name": "steps", "milestones": (7, 5)}, r"\(7, 5\) must each be above the"),
        ({"name": "steps", "milestones": (5,), "factor": 0.0}, "factor=0.0 must be ab"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        schedules.make(settings, plan(100, 10), 1.0, 0.0)


def test_weight_decay_moves_as_the_official_one_without_a_warm_up():
    arrays, meta = official.load("optim")
    settings, wanted = meta["schedules"]["wd_cos"], arrays["schedule/wd_cos"]
    ends = settings["base_value"], settings["final_value"]
    length = plan(len(wanted), warmup=30)._replace(decay=50)  # of the rate alone
    got = schedules.over_the_run(length, *ends)(np.arange(len(wanted)), xp=np)
    np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_a_moving_weight_decay_takes_its_share_of_the_weights():
    settings = config_lib.new(optim={"weight_decay": 0.1, "weight_decay_end": 0.5})
    settings.optim.update(lr=1.0, min_lr=1.0, clip_norm=0.0)
    params = {"kernel": np.ones(3, np.float32)}
    tx = optimizers.make(settings.optim, plan(4, 0), params, by_name.layers(params)).tx
    state, still = tx.init(params), {"kernel": np.zeros(3, np.float32)}
    for decay in 0.5 - 0.2 * (1 + np.cos(np.pi * np.arange(4) / 4)):
        updates, state = tx.update(still, state, params)
        np.testing.assert_allclose(updates["kernel"], -decay, rtol=1e-6)


def test_a_constant_weight_decay_adds_nothing_to_the_state():
    """So that runs which were saved before it could move go on."""
    params = {"kernel": np.ones(3, np.float32)}

    def leaves(**changes):
        settings = config_lib.new(optim=changes).optim
        made = optimizers.make(settings, plan(4, 0), params, by_name.layers(params))
        return sorted(flatten(made.tx.init(params)))

    known = ["1/count", "1/mu/kernel", "1/nu/kernel", "3/count"]
    assert leaves() == leaves(schedule={"name": "constant"}) == known
    assert leaves(weight_decay_end=0.1) == sorted([*known, "2/inner_state/count"])
