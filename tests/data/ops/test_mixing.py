"""Mixup and CutMix parameters: timm's law."""

import json

import numpy as np
import pytest
from scipy.stats import beta, kstest

from beit_jax.data.ops.mixing import NUMBERS, mix_parameters
from tests.shared import shared_path

BEIT = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}


def some_rows(count, size=(12, 16), **settings):
    u = np.random.default_rng(0).random((count, NUMBERS))
    return np.array([mix_parameters(row, size, **settings) for row in u])


def is_cutmix(rows):
    return rows[:, 1:].any(axis=1)


def test_lam_of_mixup_is_beta_and_has_no_box():
    rows = some_rows(4000, mixup_alpha=0.8, cutmix_alpha=0.0)
    assert rows.dtype == np.float32 and not is_cutmix(rows).any()
    assert kstest(rows[:, 0], beta(0.8, 0.8).cdf).pvalue > 0.01


def test_lam_of_cutmix_is_the_share_outside_the_clipped_box():
    lam, top, bottom, left, right = some_rows(4000, mixup_alpha=0.0, cutmix_alpha=1.0).T
    assert (top >= 0).all() and (top <= bottom).all() and (bottom <= 12).all()
    assert (left >= 0).all() and (left <= right).all() and (right <= 16).all()
    area = (bottom - top) * (right - left)
    np.testing.assert_allclose(lam, 1 - area / (12 * 16), atol=1e-6)


def test_cutmix_repeats_timms_boxes_from_timms_draws():
    meta = json.loads(shared_path("oracles/augment/meta.json").read_text())
    cases = [
        case
        for case in meta["mixup_cases"]
        if "boxes" in case and "batch_params" in case and case.get("correct_lam", True)
    ]
    assert len(cases) == 3
    for case in cases:
        random = np.random.RandomState(case["numpy_seed"])
        random.rand(2 if case["mixup_alpha"] else 1)  # whether, and which of the two
        lam = random.beta(1.0, 1.0)  # uniform, and so its own inverse
        centre = [(random.randint(0, side) + 0.5) / side for side in (12, 16)]
        got = mix_parameters(np.array([0, 0, lam, *centre]), (12, 16), **BEIT)
        *box, corrected = case["boxes"][0]
        assert lam == case["batch_params"][0]
        np.testing.assert_allclose(got, [corrected, *box], rtol=1e-6)


def test_centres_of_boxes_are_uniform():
    settings = {"mixup_alpha": 0, "cutmix_alpha": 1.0}
    u = np.random.default_rng(0).random((4000, NUMBERS))
    u[:, 2] = 0.99  # a box of a tenth of the sides: almost never clipped
    rows = np.array([mix_parameters(row, (200, 100), **settings) for row in u])
    _, top, bottom, left, right = rows.T
    assert abs((top + bottom).mean() / 2 - 99.5) < 3
    assert abs((left + right).mean() / 2 - 49.5) < 1.5
    assert bottom.max() == 200 and right.max() == 100
    assert top.min() == 0 and left.min() == 0


@pytest.mark.parametrize("switch", [0.5, 0.2])
def test_cutmix_takes_its_share(switch):
    # 200 x 200: a box that is too small to hold a pixel is rare.
    rows = some_rows(4000, size=(200, 200), switch=switch, **BEIT)
    assert abs(is_cutmix(rows).mean() - switch) < 0.03


def test_nothing_is_mixed_beyond_the_probability():
    rows = some_rows(4000, probability=0.3, **BEIT)
    idle = (rows == [1, 0, 0, 0, 0]).all(axis=1)
    assert abs(idle.mean() - 0.7) < 0.03


@pytest.mark.parametrize("alphas", [(0.0, 0.0), (-0.1, 1.0)])
def test_alphas_that_mix_nothing_are_refused(alphas):
    with pytest.raises(ValueError, match=r"mixup_alpha=.* cutmix_alpha=.* one of them"):
        mix_parameters(np.zeros(NUMBERS), (4, 4), *alphas)
