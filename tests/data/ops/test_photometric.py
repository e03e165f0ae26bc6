"""Photometric distortion against what mmsegmentation did with the same draws."""

import numpy as np
import pytest
from PIL import Image

from beit_jax.data.ops import photometric
from beit_jax.data.ops.photometric import Draws
from tests.shared import shared_path


@pytest.mark.parametrize("case", range(8))
def test_pixels_are_mmsegmentations(case):
    """Exactly without HSV, which OpenCV rounds; else half a level apart, 4 at most."""
    kept = np.load(shared_path("oracles/seg_transforms/arrays.npz"))
    d = kept[f"pmd/{case}/draws"]
    what = Draws(
        d[1] if d[0] else None,
        d[4] if d[3] else None,
        d[2] == 1,
        d[6] if d[5] else None,
        int(d[8]) if d[7] else None,
    )
    made = np.asarray(photometric.apply(Image.fromarray(kept["in/image"]), what))
    apart = np.abs(made.astype(int) - kept[f"pmd/{case}/out"])
    exact = what.saturation is None and what.hue is None
    assert apart.max() <= (0 if exact else 4) and apart.mean() <= 0.4


def test_draws_have_the_ranges_and_shares_of_the_original():
    u = np.random.RandomState(0).rand(4000, photometric.NUMBERS)
    made = [photometric.draws(row) for row in u]
    for name, low, high in (
        ("brightness", -32, 32),
        ("contrast", 0.5, 1.5),
        ("saturation", 0.5, 1.5),
        ("hue", -18, 17),
    ):
        values = [getattr(what, name) for what in made]
        given = [value for value in values if value is not None]
        assert abs(len(given) / len(values) - 0.5) < 0.03
        edge = 0.01 * (high - low)
        assert low <= min(given) < low + edge and high - edge < max(given) <= high
    assert abs(np.mean([what.contrast_first for what in made]) - 0.5) < 0.03


def test_nothing_drawn_changes_nothing_and_grey_stays_grey():
    grey = Image.fromarray(np.full((4, 5, 3), 77, np.uint8))
    for what in (Draws(*[None] * 5), Draws(None, None, True, 1.4, 9)):
        np.testing.assert_array_equal(photometric.apply(grey, what), grey)
