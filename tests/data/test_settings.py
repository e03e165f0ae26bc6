"""The settings of augmentation are checked, and all of them are in every config."""

import pytest

from beit_jax import config
from beit_jax.data.settings import Augment


def test_a_config_has_every_setting_with_its_default():
    assert Augment.from_config(config.defaults().data.augment) == Augment()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_scal": 0.5}, "no setting 'min_scal'; did you mean 'min_scale'"),
        ({"min_scale": 0.9, "max_scale": 0.5}, "min_scale <= max_scale"),
        ({"min_ratio": 0.0}, "0 < min_ratio"),
        ({"crop_pct": 1.5}, "crop_pct <= 1"),
        (
            {"crop": "random"},
            "crop='random' must be one of random_resized, square",
        ),
        (
            {"interpolation": "cubic"},
            "interpolation='cubic' must be one of area, bil",
        ),
        ({"jitter": 1.5}, "0 <= jitter <= 1"),
        ({"jitter_on": "host"}, "jitter_on='host' must be one of image, view, device"),
        ({"erase": -0.1}, "0 <= erase"),
        ({"mixup": -1.0}, "mixup >= 0"),
        ({"repeats": 0}, "repeats >= 1"),
        ({"randaugment": "rand-m9"}, "randaugment='rand-m9'"),
        ({"fill": (1, 2)}, "fill"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Augment.from_config(settings)
