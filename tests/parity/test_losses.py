"""Losses against PyTorch's, timm's and torchvision's, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.tasks.losses import LOSSES
from tests.agreement import assert_agrees

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

ROWS, CLASSES = 9, 5
RNG = np.random.default_rng(0)
LOGITS = 3 * RNG.standard_normal((ROWS, CLASSES), np.float32)
LABEL = RNG.integers(0, CLASSES, ROWS)
SOFT = RNG.dirichlet(np.full(CLASSES, 0.3), ROWS).astype(np.float32)
MANY = RNG.integers(0, 2, (ROWS, CLASSES)).astype(np.float32)
POSITIVE = np.float32([0.5, 1, 2, 3, 10])


def agree(peer, what, ours, theirs):
    """The mean over the images, and its gradient."""
    value, slope = jax.value_and_grad(lambda x: jnp.mean(ours(x)))(LOGITS)
    outputs = torch.tensor(LOGITS, requires_grad=True)
    wanted = theirs(outputs)
    wanted.backward()
    assert_agrees(peer, what, value, wanted.item(), 2e-6)
    assert_agrees(peer, f"{what}, gradient", slope, outputs.grad, 1e-6)


@pytest.mark.parametrize("wanted", [SOFT, MANY], ids=["mixed", "several labels"])
@pytest.mark.parametrize(
    "settings, names",
    [
        ({}, {}),
        ({"threshold": 0.2}, {"target_threshold": 0.2}),
        ({"sum_classes": True}, {"sum_classes": True}),
    ],
)
def test_binary_cross_entropy_is_timms(settings, names, wanted):
    timm = pytest.importorskip("timm.loss")
    theirs, ours = timm.BinaryCrossEntropy(**names), LOSSES["binary"](**settings)
    target = torch.tensor(wanted)
    agree(
        "timm",
        f"binary {settings}",
        lambda x: ours(x, wanted),
        lambda x: theirs(x, target),
    )


def test_smoothed_labels_are_those_of_timms_binary_cross_entropy():
    from beit_jax.tasks.on_device import soft_targets

    timm = pytest.importorskip("timm.loss")
    theirs, ours = timm.BinaryCrossEntropy(smoothing=0.1), LOSSES["binary"]()
    wanted, label = soft_targets(LABEL, CLASSES, 0.1), torch.tensor(LABEL)
    agree(
        "timm",
        "binary, smoothed",
        lambda x: ours(x, wanted),
        lambda x: theirs(x, label),
    )


def test_factors_on_what_is_wanted_are_pytorchs():
    theirs = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(POSITIVE))
    target = torch.tensor(SOFT)
    agree(
        "torch",
        "pos_weight",
        lambda x: LOSSES["binary"]()(x, SOFT, POSITIVE),
        lambda x: theirs(x, target),
    )


@pytest.mark.parametrize("alpha", [0.25, None])
@pytest.mark.parametrize("gamma", [1.0, 2.0, 3.5])
def test_focal_loss_is_torchvisions(gamma, alpha):
    theirs = pytest.importorskip("torchvision.ops").sigmoid_focal_loss
    ours, target = LOSSES["focal"](gamma, alpha), torch.tensor(MANY)
    their_alpha = -1 if alpha is None else alpha

    def focal(x):
        return theirs(x, target, alpha=their_alpha, gamma=gamma).sum(1).mean()

    agree("torchvision", "focal", lambda x: ours(x, MANY), focal)


@pytest.mark.parametrize(
    "name, peer, settings",
    [
        ("mse", "MSELoss", {}),
        ("l1", "L1Loss", {}),
        ("smooth_l1", "SmoothL1Loss", {"beta": 0.5}),
    ],
)
def test_losses_of_numbers_are_pytorchs(name, peer, settings):
    ours, theirs = LOSSES[name](**settings), getattr(torch.nn, peer)(**settings)
    target = torch.tensor(MANY)
    agree("torch", name, lambda x: ours(x, MANY), lambda x: theirs(x, target))
