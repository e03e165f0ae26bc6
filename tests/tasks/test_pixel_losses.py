import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.tasks import pixel_losses
from tests.agreement import assert_agrees
from tests.models import official

PEER = "mmsegmentation, losses of maps"
# What was recorded -> the losses that should give it.
RECORDED = {
    "ce_all_pixels": {"cross_entropy": {}},
    "ce_valid_pixels": {"cross_entropy": {"average": "valid"}},
    "ce_cw_valid": {"cross_entropy": {"average": "valid", "class_weights": "given"}},
    "dice_seed_softmax": {"dice": {}},
    "dice_seed_per_image": {"dice": {"form": "images"}},
    "dice_mmseg_softmax": {"dice": {"form": "mmseg", "smooth": 1e-3}},
    "dice_mmseg_sigmoid": {
        "dice": {"form": "mmseg", "smooth": 1e-3, "activation": "sigmoid"}
    },
    "dice_mmseg_naive": {"dice": {"form": "naive", "smooth": 1e-3}},
    "focal_sigmoid_valid": {"focal": {"activation": "sigmoid", "alpha": 0.25}},
    "focal_sigmoid_mmseg": {
        "focal": {"activation": "sigmoid", "alpha": 0.5, "average": "all"}
    },
    "focal_softmax_valid": {"focal": {}},
}
ALL_IGNORED = "_allignored"


@pytest.fixture(scope="module")
def recording():
    arrays, _ = official.load("seg_losses")
    return arrays


def value_and_grad(losses, logits, labels, weight=None):
    weight = jnp.ones(len(labels)) if weight is None else weight
    loss = pixel_losses.build(losses)

    def mean(logits):
        total, count = loss(jnp.asarray(logits), jnp.asarray(labels), weight)
        return total / jnp.maximum(count, 1e-9)

    return jax.value_and_grad(mean)(logits)


def test_losses_and_gradients_are_those_recorded(recording):
    logits = recording["in/logits"].transpose(0, 2, 3, 1)
    names = [name[4:] for name in recording if name.startswith("out/")]
    assert names
    for name in names:
        base, labels = name.removesuffix(ALL_IGNORED), recording["in/label"]
        if base != name:
            labels = np.full_like(labels, pixel_losses.IGNORED)
        losses = {
            kind: settings
            | ({"class_weights": tuple(map(float, recording["in/class_weight"]))})
            if "class_weights" in settings
            else settings
            for kind, settings in RECORDED[base].items()
        }
        value, grad = value_and_grad(losses, logits, labels)
        assert_agrees(PEER, f"{name}: loss", value, recording[f"out/{name}"], 2e-6)
        wanted = recording[f"grad/{name}"].transpose(0, 2, 3, 1)
        assert_agrees(PEER, f"{name}: gradients", grad, wanted, 1e-6)


def random_maps(seed: int = 0):
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((3, 4, 5, 3)).astype(np.float32)
    labels = rng.integers(0, 3, (3, 4, 5)).astype(np.int32)
    labels[:, 0] = pixel_losses.IGNORED
    return logits, labels


@pytest.mark.parametrize("name", pixel_losses.PIXEL_LOSSES)
def test_what_only_fills_a_batch_counts_for_nothing(name):
    logits, labels = random_maps()
    whole, _ = value_and_grad({name: {}}, logits[:2], labels[:2])
    padded, grad = value_and_grad(
        {name: {}}, logits, labels, jnp.array([1.0, 1.0, 0.0])
    )
    np.testing.assert_allclose(padded, whole, rtol=1e-6)
    assert not grad[2].any()


@pytest.mark.parametrize("name", pixel_losses.PIXEL_LOSSES)
def test_sure_and_right_logits_have_finite_gradients(name):
    _, labels = random_maps()
    logits = 200 * jax.nn.one_hot(labels % 3, 3) - 100
    for sign in (1, -1):
        value, grad = value_and_grad({name: {}}, sign * logits, labels)
        assert np.isfinite(value) and np.isfinite(grad).all()


def test_several_losses_add_up_by_their_weights():
    logits, labels = random_maps()
    parts = [
        value_and_grad({name: {}}, logits, labels)[0]
        for name in ("cross_entropy", "dice")
    ]
    both, _ = value_and_grad(
        {"cross_entropy": {"weight": 0.5}, "dice": {"weight": 3.0}}, logits, labels
    )
    np.testing.assert_allclose(both, 0.5 * parts[0] + 3 * parts[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        ({}, "is empty"),
        ({"iou": {}}, "no 'iou'"),
        ({"dice": {"form": "square"}}, "form='square'"),
        ({"dice": {"weight": -1.0}}, "weight=-1.0"),
        ({"focal": {"alpha": 0.2}}, "alpha=0.2"),
        ({"cross_entropy": {"average": "mean"}}, "average='mean'"),
    ],
)
def test_settings_that_do_not_fit_are_named(losses, told):
    with pytest.raises(ValueError, match=told):
        pixel_losses.build(losses)
