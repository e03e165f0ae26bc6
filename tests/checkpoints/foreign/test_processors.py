"""What an image processor does to images is a view of ours, both ways."""

import pytest

from beit_jax.checkpoints.foreign import processors

CARD = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
CARD |= {"apply_exif": False}


def read(processor, size=(224, 224)):
    return processors.of_texts({processors.FILE: processor}, "a file", size)


@pytest.mark.parametrize(
    "frame, kind",
    [
        ({"name": "centre", "crop_pct": 0.875}, "CLIPImageProcessor"),
        ({"name": "centre", "crop_pct": 1.0}, "CLIPImageProcessor"),
        ({"name": "whole", "crop_pct": 1.0}, "BeitImageProcessor"),
        ({"name": "whole", "crop_pct": 0.875}, "BeitImageProcessor"),
    ],
)
def test_a_processor_that_is_written_is_read_as_the_same_view(frame, kind):
    card = CARD | {"image_size": [224, 224], "frame": frame}
    written, _ = processors.to_processor(card)
    assert kind in written.values()
    back = read(written).frame
    assert back["name"] == frame["name"]
    assert back.get("crop_pct", 1.0) == pytest.approx(frame["crop_pct"], abs=0.003)


SQUASH = {"image_processor_type": "ViTImageProcessor", "size": 224}
SHORT = {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224}
CONVNEXT = {"image_processor_type": "ConvNextImageProcessor", "crop_pct": None}


@pytest.mark.parametrize(
    "processor, size, name, share",
    [
        (SQUASH, 224, "whole", 1.0),
        ({"size": {"height": 224, "width": 224}}, 224, "whole", 1.0),
        (SHORT | {"image_processor_type": "CLIPImageProcessor"}, 224, "centre", 0.875),
        (CONVNEXT | {"size": {"shortest_edge": 224}}, 224, "centre", 0.875),
        (CONVNEXT | {"size": {"shortest_edge": 384}}, 384, "whole", 1.0),
    ],
)
def test_a_resize_of_a_known_processor_is_a_view_of_ours(processor, size, name, share):
    made = read(processor, (size, size)).frame
    assert made["name"] == name
    assert made.get("crop_pct", 1.0) == pytest.approx(share, abs=0.003)
