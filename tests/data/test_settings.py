"""The settings of augmentation are checked, and all of them are in every config."""

import pytest

from beit_jax import config
from beit_jax.data import frames
from beit_jax.data.settings import Augment


def test_a_config_has_every_setting_with_its_default():
    data = config.defaults().data
    assert Augment.from_config(data.augment) == Augment()
    for section in (data.frame, data.eval_frame):
        assert frames.complete({"name": section.name}) == section.to_dict()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flipp": True}, "data.augment takes no setting 'flipp'; did you mean 'flip'"),
        (
            {"interpolation": "cubic"},
            "interpolation='cubic' must be one of area, bil",
        ),
        ({"jitter": 1.5}, "jitter=1.5 must be in 0 .. 1"),
        ({"jitter_on": "host"}, "jitter_on='host' must be one of image, view, device"),
        ({"erase": -0.1}, "erase=-0.1 must be in 0 .. 1"),
        ({"mixup": -1.0}, "mixup=-1.0 must be at least 0"),
        ({"repeats": 0}, "repeats=0 must be at least 1"),
        ({"randaugment": "rand-m9"}, "randaugment='rand-m9'"),
        ({"fill": (1, 2)}, "fill=.* must be three levels in 0 .. 255"),
        ({"fill": (0, 0, 256)}, "three levels"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Augment.from_config(settings)
