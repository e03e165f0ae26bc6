"""Image processors of transformers as views of ours, and back."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from beit_jax.checkpoints import read, write
from beit_jax.checkpoints.foreign import preparation, processors
from beit_jax.data import frames
from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.run import card
from tests.checkpoints.foreign.test_families import CLASSIFIER, set_json, written
from tests.parity.cases import CASES
from tests.parity.conversions import checkpoint

SIDE = 224
CENTRE, WHOLE = preparation.centre, preparation.whole
SHARE = 224 / 256
MEAN = (128, 128, 128)  # the colour of zeros
SQUARE = {"height": SIDE, "width": SIDE}
BORDERED = preparation.fit(MEAN, "top_left")

# Type, what it says -> the frame of ours.
RESIZES = [
    ("BeitImageProcessor", {"size": SQUARE}, WHOLE()),
    ("BeitImageProcessorFast", {"size": SIDE}, WHOLE()),
    ("BeitFeatureExtractor", {"size": SIDE}, WHOLE()),
    ("ViTImageProcessorPil", {"size": [SIDE, SIDE]}, WHOLE()),
    (None, {"size": 256, "do_center_crop": True, "crop_size": SIDE}, WHOLE(SHARE)),
    (
        "DeiTImageProcessor",
        {"size": {"height": 256, "width": 256}, "do_center_crop": True},
        WHOLE(SHARE),
    ),
    ("CLIPImageProcessor", {"size": SIDE}, CENTRE()),
    ("CLIPFeatureExtractor", {"size": 256, "crop_size": SIDE}, CENTRE(SHARE)),
    ("BitImageProcessorFast", {"size": {"shortest_edge": 256}}, CENTRE(SHARE)),
    (
        "BeitImageProcessor",
        {"size": {"shortest_edge": 235}, "do_center_crop": True},
        CENTRE(0.95),
    ),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": SIDE}}, CENTRE(SHARE)),
    ("ConvNextFeatureExtractor", {"size": SIDE, "crop_pct": 0.9}, CENTRE(0.9)),
    ("ConvNextImageProcessor", {"size": SIDE, "crop_pct": None}, CENTRE(SHARE)),
    ("PoolFormerImageProcessor", {"size": SIDE, "crop_pct": 0.95}, CENTRE(0.95)),
    ("LevitImageProcessor", {"size": {"shortest_edge": SIDE}}, CENTRE(SHARE)),
    ("DonutImageProcessor", {"size": SQUARE}, preparation.fit()),
    ("SamImageProcessor", {"size": {"longest_edge": SIDE}, "do_pad": True}, BORDERED),
    (
        "SamImageProcessor",
        {"size": {"longest_edge": SIDE}, "do_pad": True, "pad_size": SQUARE},
        BORDERED,
    ),
    (
        "SomeImageProcessor",
        {"size": {"max_height": SIDE, "max_width": SIDE}, "do_pad": True},
        BORDERED,
    ),
]


def prepared(kind, said, side=SIDE):
    processor = {"image_processor_type": kind, **said}
    if kind and kind.endswith("Extractor"):
        processor["feature_extractor_type"] = processor.pop("image_processor_type")
    texts = {processors.FILE: processor}
    return processors.of_texts(texts, "x", (side, side))


@pytest.mark.parametrize("kind, said, frame", RESIZES)
def test_every_resize_of_a_known_processor_is_a_view_of_ours(kind, said, frame):
    made = prepared(kind, said)
    assert (made.frame, made.notes) == (frame, ())
    assert frames.complete(made.frame)


SCALES = [
    ({}, "half"),  # BEiT's own defaults
    ({"image_mean": 0.5, "image_std": 0.5}, "half"),
    ({"image_mean": None, "image_std": None, "do_rescale": None}, "half"),
    ({"rescale_factor": 1 / 127.5, "image_mean": [1] * 3, "image_std": 1}, "half"),
    ({"do_rescale": False, "image_mean": 127.5, "image_std": [127.5] * 3}, "half"),
    (
        {"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False},
        "half",
    ),
    ({"do_normalize": False}, "unit"),
    ({"image_mean": 0, "image_std": 1}, "unit"),
    ({"do_normalize": False, "do_rescale": False}, "raw"),
    ({"do_normalize": False, "rescale_factor": 1}, "raw"),
    ({"image_std": 1.0}, "centred"),
    ({"image_std": 0.5**0.5, "include_top": True}, "half"),
]


@pytest.mark.parametrize("said, pixels", SCALES)
def test_scaling_and_normalising_come_to_a_pixel_space(said, pixels):
    """Of transformers' pixels: times the factor, less the mean, divided by std."""
    made = prepared("BeitImageProcessor", {"size": SIDE, **said})
    assert (made.pixels, made.notes) == (pixels, ())
    x = np.arange(256.0)
    factor = 1.0 if said.get("do_rescale") is False else said.get("rescale_factor")
    theirs = x * (factor or 1 / 255) - bool(said.get("rescale_offset"))
    if said.get("do_normalize", True):
        mean, std = (said.get(f"image_{name}") for name in ("mean", "std"))
        mean, std = (0.5 if x is None else np.ravel(x)[0] for x in (mean, std))
        theirs = (theirs - mean) / (std**2 if said.get("include_top") else std)
    space = PIXEL_SPACES[pixels]
    ours = (x / 255 - space.mean[0]) / space.std[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    "said",
    [
        {"size": [256, 256], "crop_size": [SIDE, SIDE], "do_center_crop": True},
        {"size": 256.0, "crop_size": SIDE, "do_center_crop": True},
        {"size": {"height": 256, "width": 256, "shortest_edge": None}}
        | {"crop_size": None, "do_center_crop": True},
    ],
)
def test_sizes_are_numbers_lists_or_sides(said):
    made = prepared("BeitImageProcessor", said)
    assert (made.frame, made.notes) == (WHOLE(SHARE), ())


@pytest.mark.parametrize(
    "said, words",
    [
        ({"image_mean": [0.5]}, r"image_mean=\[0\.5\] must be a number, or three"),
        ({"image_std": "0.5"}, "image_std='0.5' must be a number"),
        ({"rescale_factor": "1/255"}, "rescale_factor='1/255' must be above 0"),
        ({"rescale_factor": 0}, "rescale_factor=0 must be above 0"),
        ({"image_mean": [0.5, math.nan, 0.5]}, "image_mean=.*nan.* must be a number"),
        ({"size": math.inf}, "size=inf must be pixels"),
        ({"size": "224"}, "size='224' must be pixels"),
        ({"size": [224]}, r"size=\[224\] must be pixels"),
        ({"size": {"side": 224}}, "must be pixels: a number, two, or some of height"),
        ({"size": {"height": [1], "width": 2}}, "must be pixels"),
        ({"size": -224}, "size=-224 must be pixels"),
        (
            {"crop_size": {"shortest_edge": 9}, "do_center_crop": True},
            "crop_size={'shortest_edge': 9} is none that",
        ),
        ({"resample": [3]}, r"resample=\[3\], none of PIL's"),
        ({"do_resize": "no"}, "do_resize='no' must be true or false"),
        ({"do_flip_channel_order": True}, "order blue, green, red, which nothing"),
        ({"do_grayscale": True}, "do_grayscale=True means grey images"),
        ({"keep_aspect_ratio": True}, "keep_aspect_ratio=True means"),
        ({"size_divisor": 32}, "size_divisor=32 means"),
        ({"do_pad": True, "pad_size": {"height": 256}}, "means a border of another"),
    ],
)
def test_fields_that_cannot_be_followed_are_refused_by_name(said, words):
    with pytest.raises(ValueError, match=f"{processors.FILE}: .*{words}"):
        prepared("BeitImageProcessor", {"size": SIDE, **said})


def test_what_a_processor_does_without_saying_so_is_refused_too():
    with pytest.raises(ValueError, match="do_flip_channel_order=True means colours"):
        prepared("MobileViTImageProcessor", {"size": 256, "crop_size": SIDE})
    with pytest.raises(ValueError, match="do_thumbnail=False of Donut"):
        prepared("DonutImageProcessor", {"size": SQUARE, "do_thumbnail": False})


def test_fields_that_are_not_known_are_told():
    (note,) = prepared("BeitImageProcessor", {"size": SIDE, "sharpen": 2}).notes
    assert "sharpen: not known here, and not followed" in note
    said = {"size": SIDE, "do_convert_rgb": True, "data_format": "channels_first"}
    assert prepared("BeitImageProcessor", said | {"sharpen": None}).notes == ()


def test_a_file_alone_tells_nothing_and_what_is_assumed_is_told():
    (note,) = processors.of_texts({}, "x", (SIDE, SIDE)).notes
    assert note.startswith("pixels='half' by") and "crop_pct=0.875: the file" in note
    (given,) = processors.of_texts({}, "x", (SIDE, SIDE), "unit").notes
    assert "pixels" not in given and "crop_pct=0.875: the file" in given
    assert "crop_pct=1.0" in processors.of_texts({}, "x", (384, 384)).notes[0]


def test_convnext_squashes_large_images():
    made = prepared("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}, 384)
    assert (made.frame, made.notes) == (WHOLE(), ())


@pytest.mark.parametrize(
    "kind, said, words",
    [
        ("BeitImageProcessor", {"do_resize": False}, "resizes nothing"),
        (
            "CLIPImageProcessor",
            {"size": {"shortest_edge": SIDE}, "do_center_crop": False},
            "cuts nothing off",
        ),
        ("BeitImageProcessor", {"size": 384}, "gives 384x384 px, the weights are for"),
        ("NewImageProcessor", {"size": SIDE}, "'new' is not known here"),
    ],
)
def test_what_no_view_of_ours_does_is_said(kind, said, words):
    (note,) = prepared(kind, said).notes
    assert words in note


def test_sizes_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="cuts 224 px out of images of 200 px"):
        prepared("CLIPImageProcessor", {"size": 200, "crop_size": SIDE})
    with pytest.raises(ValueError, match=r"size=\{'longest_edge': 9\} is none that"):
        prepared("BeitImageProcessor", {"size": {"longest_edge": 9}})


@pytest.mark.parametrize("resized", range(224, 300))
@pytest.mark.parametrize("name, rounding", [("centre", int), ("whole", round)])
def test_a_share_gives_the_size_that_it_was_made_of(name, rounding, resized):
    section = {"crop_pct": preparation.share(224, resized, rounding)}
    frame = frames.FRAMES[name](**section)((), (300, 300), (224, 224))
    assert frame.resized == (resized, resized)


@pytest.mark.parametrize(
    "frame, kind",
    [
        ({"name": "centre", "crop_pct": 0.875}, "CLIPImageProcessor"),
        ({"name": "whole", "crop_pct": 0.9}, "BeitImageProcessor"),
        ({"name": "fit"}, "DonutImageProcessor"),
    ],
)
def test_a_frame_goes_to_transformers_and_comes_back(frame, kind, tmp_path):
    saved = checkpoint(CASES["mean_per_block"], eval_frame=frame)
    report = write.write(saved, tmp_path / "hf", "hf")
    assert ["resizes an image twice" in note for note in report.notes] == (
        [True] if frame["name"] == "fit" else []
    )
    said = json.loads((tmp_path / "hf" / processors.FILE).read_text())
    assert said["image_processor_type"] == kind
    back, report = read.read(tmp_path / "hf")
    assert report.notes == ()
    assert card.of_checkpoint(back) == saved.card


@pytest.mark.parametrize(
    "case, data, words",
    [
        ("mean_per_block", {"eval_frame": {"name": "pad", "pad": 0}}, "no frame 'pad'"),
        (
            "mean_per_block",
            {"eval_frame": {"name": "fit", "fill": (9, 9, 9)}},
            "middle of black",
        ),
        ("rectangle", {}, "the view's long one"),
        ("mean_per_block", {"augment": {"interpolation": "area"}}, "area filter"),
    ],
)
def test_what_no_processor_does_is_said(case, data, words, tmp_path):
    saved = checkpoint(CASES[case], **data)
    report = write.write(saved, tmp_path / "hf", "hf")
    assert any(words in note for note in report.notes)
    read.read(tmp_path / "hf")


def test_a_wrapped_network_of_timm_has_timms_views():
    images = {"input_size": [3, 224, 224], "mean": [0.5] * 3, "std": [0.5] * 3}
    images |= {"crop_pct": 0.9, "crop_mode": "squash", "interpolation": "bilinear"}
    said = {"architecture": "beit_base_patch16_224", "pretrained_cfg": images}
    made = prepared("TimmWrapperImageProcessor", said)
    resized = int(224 / 0.9)
    assert round(224 / made.frame["crop_pct"]) == resized
    assert (made.frame["name"], made.interpolation) == ("whole", "bilinear")


def test_a_processor_that_squashes_is_followed_to_the_pixel(tmp_path):
    folder = written(tmp_path, "hf", CLASSIFIER)
    square = {"height": 32, "width": 32}
    beit = {"image_processor_type": "BeitImageProcessor", "size": square}
    set_json(folder / processors.FILE, **beit, do_center_crop=False)
    saved, report = read.read(folder)
    assert report.notes == ()
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
    )
    made = card.of_checkpoint(saved)["frame"]
    view = frames.FRAMES[made.pop("name")](**made)((), (40, 70), (32, 32))
    bicubic = Image.Resampling.BICUBIC
    np.testing.assert_array_equal(
        view.image(image, bicubic), image.resize((32, 32), bicubic)
    )
