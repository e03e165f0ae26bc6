"""RandAugment: timm's pixels for every op, timm's law of choosing them."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from beit_jax.data.ops import randaugment
from beit_jax.data.ops.randaugment import OPS, Policy
from tests.shared import shared_path

BEIT = "rand-m9-mstd0.5-inc1"


def drawn(policy, count=15_000):
    u = np.random.default_rng(0).random((count, policy.layers, randaugment.NUMBERS))
    return [randaugment.steps(policy, row) for row in u]


def flat(steps):
    return [step for row in steps for step in row]


@pytest.mark.parametrize("image, sign", [(0, 1), (1, -1)])
@pytest.mark.parametrize("name", OPS)
def test_an_op_gives_the_pixels_of_timm(name, image, sign):
    folder = shared_path("oracles/augment")
    arrays = np.load(folder / "arrays.npz")
    meta = json.loads((folder / "meta.json").read_text())
    source = Image.fromarray(arrays[f"randaug/src_{image}"])
    wanted = arrays[f"randaug/{name}/img{image}"]
    for magnitude, want in zip(meta["randaug_m"], wanted, strict=True):
        argument = OPS[name][0](magnitude / 10, sign)
        known = meta["randaug_level_args"][f"{name}/img{image}/m{magnitude}"]
        assert [argument] == known or not known
        got = randaugment.op(source, name, magnitude, sign)
        np.testing.assert_array_equal(got, want)


def test_the_ops_are_timms_in_timms_order():
    meta = json.loads(shared_path("oracles/augment/meta.json").read_text())
    assert list(OPS) == meta["randaug_ops"]


def test_ops_are_chosen_alike_and_with_replacement():
    steps = drawn(Policy.parse(BEIT + "-p1"))
    pairs = Counter((first[0], second[0]) for first, second in steps)
    shares = Counter(name for name, _, _ in flat(steps))
    assert len(pairs) == len(OPS) ** 2
    assert shares.keys() == OPS.keys()
    assert max(abs(n / 30_000 - 1 / 15) for n in shares.values()) < 0.006


def test_each_layer_is_applied_half_of_the_time():
    counts = Counter(len(steps) for steps in drawn(Policy.parse(BEIT)))
    for layers, share in ((0, 0.25), (1, 0.5), (2, 0.25)):
        assert abs(counts[layers] / 15_000 - share) < 0.015


def test_magnitudes_are_normal_and_clipped():
    magnitudes = np.array([m for _, m, _ in flat(drawn(Policy.parse(BEIT)))])
    assert magnitudes.max() == 10
    assert abs((magnitudes == 10).mean() - 0.0228) < 0.005  # beyond two sigma
    below = magnitudes[magnitudes < 9]
    assert abs(len(below) / len(magnitudes) - 0.5) < 0.015
    assert abs(((below - 9) ** 2).mean() ** 0.5 - 0.5) < 0.015


def test_signs_are_as_often_minus_as_plus_and_unrelated_to_the_magnitude():
    steps = flat(drawn(Policy.parse(BEIT)))
    signs = np.array([sign for _, _, sign in steps])
    assert set(signs) == {-1, 1} and abs(signs.mean()) < 0.03
    assert abs(np.corrcoef(signs, [m for _, m, _ in steps])[0, 1]) < 0.03


def test_without_std_the_magnitude_is_constant_and_beyond_100_uniform():
    constant = flat(drawn(Policy.parse("rand-m7-inc1"), 100))
    assert {m for _, m, _ in constant} == {7}
    uniform = [m for _, m, _ in flat(drawn(Policy.parse("rand-m8-mstd101-inc1")))]
    histogram, _ = np.histogram(uniform, bins=4, range=(0, 8))
    assert np.abs(histogram / len(uniform) - 0.25).max() < 0.015


def test_steps_are_done_in_order():
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5)
    names = list(OPS)
    chosen = [(names.index(name) + 0.5) / 15 for name in ("SolarizeAdd", "Invert")]
    u = np.array([[which, 0.0, 0.5, 0.0] for which in chosen])
    got = randaugment.apply(image, Policy.parse("rand-m9-inc1"), u)
    want = randaugment.op(randaugment.op(image, "SolarizeAdd", 9), "Invert", 9)
    np.testing.assert_array_equal(got, want)


def test_what_a_shift_leaves_empty_has_the_colour_of_the_mean():
    fill = (124, 116, 104)  # ImageNet's
    image = randaugment.op(Image.new("RGB", (8, 8)), "TranslateXRel", 10, -1, fill)
    assert image.getpixel((0, 0)) == fill


def test_a_policy_is_read_in_any_order_with_timms_defaults():
    assert Policy.parse(BEIT) == Policy(magnitude=9, layers=2, magnitude_std=0.5)
    assert Policy.parse("rand-inc1-p0.25-n3-mmax12") == Policy(
        magnitude=10, layers=3, probability=0.25, max_magnitude=12
    )


@pytest.mark.parametrize(
    "text",
    ["rand-m9", "rand-m9-inc0", "augmix-m5-inc1", "rand-inc1-tweights", "rand-inc1-w0"]
    + ["rand-m9-m9-inc1", "rand-m9.5-inc1", "rand-m-inc1", "rand-n0-inc1"]
    + ["rand-p1.5-inc1", "rand-mstdinf-inc1", ""],
)
def test_a_policy_that_timm_reads_otherwise_is_refused(text):
    with pytest.raises(ValueError, match=f"randaugment='{text}'"):
        Policy.parse(text)
