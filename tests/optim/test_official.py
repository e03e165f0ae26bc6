"""Groups, steps and a training run of the official PyTorch code, repeated by ours."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from beit_jax import config as config_lib
from beit_jax import tasks
from beit_jax.config import Plan
from beit_jax.heads.tokens import TokenHead
from beit_jax.optim import layers, optimizers
from beit_jax.run import state
from beit_jax.tasks.pretrain import masked_slots
from tests.agreement import assert_agrees
from tests.models import official
from tests.optim import by_name
from tests.shared import shared_path


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


pytestmark = pytest.mark.usefixtures("optimised")


def plan(total: int, warmup: int) -> Plan:
    return Plan(total=total, warmup=warmup, log=0, save=0)


# The recorded models of groups.json: the task, the model, and the task's settings.
CLASSES = {"classes": 1000}
RECORDED = {
    "B_pretrain_v1_sharedRPB": ("pretrain", {"rel_pos_bias": "shared"}, {}),
    "B_finetune_v1_ld0.65": ("classify", {"rel_pos_bias": "per_block"}, CLASSES),
    "B_finetune_v1_use_cls_abs_ld0.75": (
        "classify",
        {"rel_pos_bias": "none", "abs_pos_embed": "learned", "layer_scale": 0.0},
        CLASSES | {"pool": "cls"},
    ),
}


def groups(name: str) -> dict:
    path = shared_path("oracles/optim/groups.json")
    return json.loads(path.read_text())[name]


def base_params(name: str) -> dict:
    """Shapes of our parameters for the recorded model."""
    task, model, settings = RECORDED[name]
    if task == "pretrain":
        target = {"checkpoint": "untrained", "untrained": {"vocab": 8192}}
        settings = {"target": {"name": "tokens"} | target}
    base = {"image_size": 224, "dim": 768, "depth": 12, "heads": 12}
    config = config_lib.new(
        task={"name": task} | settings,
        model=base | model,
        data={"mask": {"max_patches": 75}},
    )
    task = tasks.build(config)
    example = {
        name: jax.ShapeDtypeStruct((1, *spec.shape), spec.dtype)
        for name, spec in task.train_spec.items()
    }
    return nn.unbox(state.abstract_variables(task, example))["params"]


@pytest.mark.parametrize("name", RECORDED)
def test_decay_and_scale_of_every_parameter_are_the_official_ones(name):
    recorded = groups(name)
    params = base_params(name)
    assert sum(x.size for x in jax.tree.leaves(params)) == recorded["n_params"]

    def thin(values: dict[str, float]) -> dict:
        """Arrays of our layout full of each parameter's value; width 12, not 768."""
        state = {
            parameter: np.full([n // 64 if n % 64 == 0 else n for n in shape], value)
            for (parameter, value), (_, _, shape) in zip(
                values.items(), recorded["params"].values(), strict=True
            )
        }
        return official.tree(state, heads=12)

    def assert_same(got: dict, wanted: dict):
        assert jax.tree.structure(got) == jax.tree.structure(wanted)

        def check(path, got, wanted):
            message = jax.tree_util.keystr(path)
            got = np.broadcast_to(got, wanted.shape)
            np.testing.assert_allclose(got, wanted, rtol=1e-6, err_msg=message)

        jax.tree_util.tree_map_with_path(check, got, wanted)

    scales = {key: scale for key, (scale, _, _) in recorded["params"].items()}
    decays = {key: decay for key, (_, decay, _) in recorded["params"].items()}
    assert_same(
        layers.layer_scales(by_name.layers(params), recorded["layer_decay"]),
        thin(scales),
    )
    mask = jax.tree.map(lambda yes: 0.05 * yes, optimizers.decay_mask(params))
    assert_same(mask, thin(decays))


def whole(states: dict[str, np.ndarray], depth: int) -> dict[str, np.ndarray]:
    """Zeros for the parameters that only some of the recorded blocks have."""
    rests = {k.split(".", 2)[2]: k for k in states if k.startswith("blocks.")}
    return states | {
        f"blocks.{i}.{rest}": states.get(f"blocks.{i}.{rest}", np.zeros_like(states[k]))
        for rest, k in rests.items()
        for i in range(depth)
    }


def make(meta: dict, length: Plan, params) -> optax.GradientTransformation:
    """Our optimizer with the hyper-parameters of a recording."""
    settings = config_lib.defaults().optim
    settings.update(
        lr=meta["lr"],
        clip_norm=meta["clip_grad"],
        layer_decay=meta.get("layer_decay", 1.0),
        weight_decay=meta["weight_decay"],
    )
    return optimizers.make(settings, length, params, by_name.layers(params)).tx


def assert_within(got, wanted, atol: float):
    """Trees of arrays that differ nowhere by more than `atol`."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), got, wanted
    )


def test_clipped_adamw_with_layer_decay_follows_the_official_steps():
    arrays, meta = official.load("optim")

    def tree(prefix):
        states = whole(official.group(arrays, prefix), meta["L"])
        return official.tree(states, heads=2)

    params = tree("param")
    tx = make(meta, plan(total=meta["steps"], warmup=3), params)

    @jax.jit
    def step(params, opt_state, grads):
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return params, opt_state, optax.global_norm(grads)

    opt_state = jax.jit(tx.init)(params)
    for i in range(meta["steps"]):
        params, opt_state, norm = step(params, opt_state, tree(f"grad_in/{i}"))
        wanted = arrays[f"f32/out/step{i}_grad_norm"]
        np.testing.assert_allclose(norm, wanted, rtol=1e-6)
        assert_within(params, tree(f"f32/after/step{i}"), 5e-6)


def masked_loss(encoder, head, slots: int):
    """(params, images u8, mask, targets) -> loss, as the pre-training task has it."""

    def loss(params, images, mask, wanted):
        encoded = {"params": params["encoder"]}
        features = encoder.apply(encoded, images / 127.5 - 1, mask, train=True)
        index, used = masked_slots(mask, slots)
        wanted = jnp.take_along_axis(wanted, index, axis=1)
        logits = head.apply({"params": params}, features.at(index))
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, wanted)
        return jnp.sum(nats * used) / jnp.sum(used)

    return loss


def test_twenty_training_steps_follow_the_official_ones():
    arrays, meta = official.load("trajectory")
    meta |= {
        "use_shared_rel_pos_bias": True,
        "use_abs_pos_emb": False,
        "init_values": float(arrays["param/blocks.0.gamma_1"][0]),
    }

    def tree(prefix):
        return official.tree(official.group(arrays, prefix), meta["num_heads"])

    params, masks = tree("param"), arrays["in/bool_masked_pos"]
    encoder, head = official.encoder(meta, mask_token=True), TokenHead(32)
    loss = masked_loss(encoder, head, slots=int(masks.sum(-1).max()))
    tx = make(meta, plan(meta["steps"], meta["warmup_steps"]), params)

    @jax.jit
    def step(params, opt_state, *batch):
        nats, grads = jax.value_and_grad(loss)(params, *batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        norm = optax.global_norm(grads)
        return optax.apply_updates(params, updates), opt_state, nats, norm

    opt_state = jax.jit(tx.init)(params)
    images = arrays["in/images_u8"].transpose(0, 2, 3, 1)
    targets = arrays["in/targets"].astype(np.int32)
    peer = "oracle trajectory"
    for i, rows in enumerate(arrays["in/batch_index"]):
        batch = images[rows], masks[i], targets[rows]
        params, opt_state, nats, norm = step(params, opt_state, *batch)
        assert_agrees(peer, "loss of a step", nats, arrays["out/losses"][i], 1e-5)
        wanted = arrays["out/grad_norms"][i]
        assert_agrees(peer, "gradient norm of a step", norm, wanted, 1e-4)
    for got, wanted in zip(*map(jax.tree.leaves, (params, tree("after"))), strict=True):
        assert_agrees(peer, "parameters after 20 steps", got, wanted, 1e-4)
