"""What `data.augment` may say: how training varies its views, and their filters."""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from beit_jax.data.ops import randaugment
from beit_jax.data.ops.geometry import FILTERS
from beit_jax.lookup import call
from beit_jax.ranges import Length, Range, Share, Weight

JITTERS = ("image", "view", "device")
TOKEN_VIEWS = ("image", "first_view")
LEVELS = range(256)
# Each changes a view by a policy of its own: only one of them can be set.
POLICIES = ("randaugment", "trivialaugment", "augmix", "three_augment", "photometric")
Degrees = Annotated[float, Range(0, 180)]
Severity = Annotated[int, Range(0, 10)]


class Augment(NamedTuple):
    """The settings.

    BEiT pre-trains with jitter=0.4; it fine-tunes with randaugment=
    "rand-m9-mstd0.5-inc1", erase=0.25, mixup=0.8, cutmix=1.0. The official order is
    kept: jitter, flip and crop in pre-training; crop, flip, RandAugment, erasing and
    mixing in fine-tuning.
    """

    flip: bool = True  # half of the images
    interpolation: str = "bicubic"  # of the views, a filter of ops/geometry.py
    token_interpolation: str = "lanczos"  # BEiT v2: bicubic
    token_view: str = "image"  # "first_view": made from it, faster and a bit blurred
    jitter: Share = 0.0  # strength for brightness, contrast and saturation
    # "image": before the crop, as in pre-training; "view": after it, as in fine-tuning;
    # "device": after it and in the compiled step, which spares the host the work.
    jitter_on: str = "image"
    randaugment: str = ""  # as timm writes it; empty: none
    trivialaugment: bool = False  # instead of it: one op of any strength
    augmix: Severity = 0  # instead of it: mixed with three chains of ops; 0: off
    three_augment: bool = False  # instead of it: grey, solarised or blurred
    photometric: bool = False  # instead of it: mmsegmentation's distortion of colours
    fill: tuple = (128, 128, 128)  # where they move the image away: the mean
    rotate: Degrees = 0.0  # a view is turned by up to so many degrees either way
    erase: Share = 0.0  # probability
    mixup: Weight = 0.0  # alpha
    cutmix: Weight = 0.0  # alpha
    repeats: Length = 1  # views of an image in a row (repeated augmentation)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Augment":
        """Raises ValueError for an unknown setting or values that do not fit."""
        settings = call(cls, config, "data.augment")
        settings._check()
        return settings

    def _check(self) -> None:
        for name, known in {
            "jitter_on": JITTERS,
            "token_view": TOKEN_VIEWS,
            "interpolation": tuple(FILTERS),
            "token_interpolation": tuple(FILTERS),
        }.items():
            value = getattr(self, name)
            if value not in known:
                raise ValueError(
                    f"data.augment.{name}={value!r} must be one of {', '.join(known)}"
                )
        if len(given := [name for name in POLICIES if getattr(self, name)]) > 1:
            raise ValueError(
                f"data.augment: {' and '.join(given)} are set, each of them instead of "
                "the other; leave one"
            )
        if len(self.fill) != 3 or not all(level in LEVELS for level in self.fill):
            raise ValueError(
                f"data.augment.fill={self.fill} must be three levels in 0 .. 255"
            )
        if self.randaugment:
            randaugment.Policy.parse(self.randaugment)
