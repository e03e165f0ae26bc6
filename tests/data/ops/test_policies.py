"""TrivialAugment, AugMix and 3-Augment: which ops, how often, and what of them."""

from collections import Counter

import numpy as np
import pytest
from PIL import ImageFilter, ImageOps

from beit_jax import config as config_lib
from beit_jax import lookup
from beit_jax.data import frames
from beit_jax.data.ops import augmix, randaugment, three_augment, trivialaugment
from beit_jax.data.settings import Augment
from beit_jax.data.sources import Record
from beit_jax.data.views import Views
from tests.data import corpus

FILL = (124, 116, 104)
IMAGE = corpus.photograph()


def same(a, b):
    return np.array_equal(np.asarray(a), np.asarray(b))


def test_trivialaugment_without_strength_changes_nothing():
    for number, (name, (strengths, _)) in enumerate(trivialaugment.SPACE.items()):
        if strengths[0] == 0 and name not in ("AutoContrast", "Equalize"):
            u = np.array([(number + 0.5) / len(trivialaugment.SPACE), 0.0, 0.0])
            assert same(trivialaugment.apply(IMAGE, u, FILL), IMAGE), name


def test_trivialaugment_goes_both_ways():
    dark, light = (
        np.asarray(trivialaugment.apply(IMAGE, np.array([6.5 / 14, 0.5, sign]), FILL))
        for sign in (0.25, 0.75)
    )
    assert dark.mean() < np.asarray(IMAGE).mean() < light.mean()


def test_what_trivialaugment_uncovers_has_the_colour_of_the_mean():
    made = trivialaugment.op(IMAGE, "TranslateX", 10.0, FILL)
    assert made.getpixel((0, 0)) == FILL
    assert made.getpixel((10, 0)) == IMAGE.getpixel((0, 0))


def test_augmix_is_its_formula():
    u = np.random.default_rng(0).random(augmix.NUMBERS)
    chains = u[1:].reshape(3, -1)
    weights, mixed = np.float32(augmix.weights_of(chains[:, 0])), 0
    for weight, chain in zip(weights, chains, strict=True):
        view = IMAGE
        for step in augmix.steps(5, chain[1:]):
            view = randaugment.op(view, *step, FILL)
        mixed = mixed + weight * np.asarray(view, np.float32)
    share, plain = np.float32(u[0]), np.asarray(IMAGE, np.float32)
    wanted = plain + share * (np.floor(mixed) - plain)
    made = np.asarray(augmix.apply(IMAGE, 5, u, FILL), np.float32)
    assert np.abs(made - wanted).max() <= 1  # Pillow cuts off what is behind the point


def test_augmix_draws_as_the_paper_says():
    u = np.random.default_rng(0).random((9000, augmix.NUMBERS))
    chains = u[:, 1:].reshape(-1, 3, (augmix.NUMBERS - 1) // 3)
    weights = np.array([augmix.weights_of(row) for row in chains[..., 0]])
    np.testing.assert_allclose(weights.mean(0), 1 / 3, atol=0.01)
    np.testing.assert_allclose(weights.var(0), 1 / 18, atol=0.003)  # of Dirichlet(1)
    steps = [augmix.steps(3, row[1:]) for row in chains[:, 0]]
    depths = Counter(map(len, steps))
    assert all(abs(depths[depth] / 9000 - 1 / 3) < 0.02 for depth in (1, 2, 3))
    names = Counter(name for row in steps for name, _, _ in row)
    assert names.keys() == set(augmix.OPS)
    strengths = [strength for row in steps for _, strength, _ in row]
    assert abs(np.mean(strengths) - 1.5) < 0.03 and max(strengths) < 3


def test_three_augment_is_one_of_its_three():
    grey, solar, blurred = (
        three_augment.apply(IMAGE, np.array([which, 0.5])) for which in (0, 0.4, 0.9)
    )
    assert same(grey, IMAGE.convert("L").convert("RGB"))
    assert same(solar, ImageOps.solarize(IMAGE))
    assert same(blurred, IMAGE.filter(ImageFilter.GaussianBlur(1.05)))


@pytest.mark.parametrize(
    "setting", [{"trivialaugment": True}, {"augmix": 3}, {"three_augment": True}]
)
def test_a_policy_changes_the_pixels_of_a_view_and_no_others_draws(setting):
    spec = {"image": np.empty((32, 32, 3), np.uint8)}

    def view(**settings):
        frame = lookup.build(frames.FRAMES, {"name": "random_resized"}, "frame")
        views = Views(Augment(**settings), spec, frame, training=True)
        u = {k: np.full(n, 0.9) for k, n in views.numbers.items()}
        return views.make(Record(b""), IMAGE, u)["image"], views.numbers

    (changed, numbers), (plain, fewer) = view(**setting), view()
    assert changed.shape == plain.shape and not same(changed, plain)
    assert numbers == fewer | {next(iter(setting)): numbers[next(iter(setting))]}


def test_only_one_policy_can_be_set():
    augment = {"trivialaugment": True, "augmix": 3}
    settings = config_lib.new(data={"augment": augment}).data.augment
    with pytest.raises(ValueError, match="trivialaugment and augmix are set"):
        Augment.from_config(settings)
