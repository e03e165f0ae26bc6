"""TrivialAugment's pixels are torchvision's, AugMix's mixture and ops timm's."""

import numpy as np
import pytest
from PIL import Image

from beit_jax.data.ops import augmix, randaugment, trivialaugment
from beit_jax.tasks.viewing import VIEWS
from tests.data import corpus

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

FILL = (124, 116, 104)
IMAGE = corpus.photograph().resize((64, 64), Image.Resampling.BICUBIC)


def test_trivialaugment_has_the_pixels_of_torchvision():
    peer = pytest.importorskip("torchvision.transforms.autoaugment")
    bicubic = peer.InterpolationMode.BICUBIC
    space = peer.TrivialAugmentWide()._augmentation_space(trivialaugment.BINS)
    assert [*space] == [*trivialaugment.SPACE]
    for name, (strengths, signed) in space.items():
        ours, both = trivialaugment.SPACE[name]
        assert both == signed
        for index in range(trivialaugment.BINS):
            strength = float(strengths[index]) if strengths.ndim else 0.0
            for sign in (1, -1) if signed else (1,):
                wanted = peer._apply_op(
                    IMAGE, name, sign * strength, bicubic, list(FILL)
                )
                got = trivialaugment.op(IMAGE, name, sign * float(ours[index]), FILL)
                np.testing.assert_array_equal(got, wanted, f"{name} {index} {sign}")


def test_augmix_mixes_as_timm():
    peer = pytest.importorskip("timm.data.auto_augment")
    assert tuple(peer._AUGMIX_TRANSFORMS) == augmix.OPS
    for seed in range(5):
        u = np.random.default_rng(seed).random(augmix.NUMBERS)
        u.reshape(-1)[2 :: (augmix.NUMBERS - 1) // 3] = 0.9  # each chain has three ops
        chains = u[1:].reshape(3, -1)
        planned = [step for chain in chains for step in augmix.steps(4, chain[1:])]
        todo = iter(planned)

        def op(image, todo=todo):
            return randaugment.op(image, *next(todo), FILL)

        mix = peer.AugMixAugment([op], depth=3)
        weights = augmix.weights_of(chains[:, 0])
        wanted = mix._apply_basic(IMAGE, weights, np.float32(u[0]))
        np.testing.assert_array_equal(augmix.apply(IMAGE, 4, u, FILL), wanted)


@pytest.mark.parametrize("name, peer", [("five", "five_crop"), ("ten", "ten_crop")])
def test_crops_are_those_of_torchvision(name, peer):
    functional = pytest.importorskip("torchvision.transforms.functional")
    image = np.arange(2 * 9 * 12 * 3).reshape(2, 9, 12, 3)
    theirs = getattr(functional, peer)(torch.tensor(image).movedim(3, 1), (4, 6))
    wanted = [np.asarray(crop.movedim(1, 3)) for crop in theirs]
    order = [4, 0, 1, 2, 3, 9, 5, 6, 7, 8][: len(wanted)]  # here the centre is first
    for got, index in zip(VIEWS[name](image, (4, 6)), order, strict=True):
        np.testing.assert_array_equal(got, wanted[index])
