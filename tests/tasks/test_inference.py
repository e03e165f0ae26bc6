import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from beit_jax.models import sampling
from beit_jax.tasks import inference, windows
from tests.agreement import assert_agrees
from tests.models import official

PEER = "mmsegmentation, inference"


@pytest.fixture(scope="module")
def recording():
    return official.load("seg_inference")


def net(recording, crop):
    """The recorded network: two convolutions of stride 2, resized to the window."""
    arrays, _ = recording

    def conv(x, name):
        kernel = arrays[f"param/{name}.weight"].transpose(2, 3, 1, 0)
        made = jax.lax.conv_general_dilated(
            x,
            kernel,
            (2, 2),
            [(1, 1), (1, 1)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision="highest",
        )
        return made + arrays[f"param/{name}.bias"]

    return lambda x: sampling.bilinear(
        conv(jax.nn.gelu(conv(x, "conv1"), approximate=False), "conv2"), x.shape[1:3]
    )


def slid(recording, image, room):
    """Logits of a picture (1, 3, h, w) at the top left of a room with noise around."""
    _, meta = recording
    size = image.shape[2:]
    rng = np.random.default_rng(0)
    around = rng.standard_normal((1, *room, 3)).astype(np.float32)
    around[:, : size[0], : size[1]] = image.transpose(0, 2, 3, 1)
    crop, stride = (meta["crop"],) * 2, (meta["stride"],) * 2
    made = windows.slide(
        net(recording, crop), around, jnp.array([size]), crop, stride, at_once=4
    )
    return made[:, : size[0], : size[1]]


def test_windows_are_those_recorded(recording):
    arrays, _ = recording
    wanted = arrays["out/slide_logits"].transpose(0, 2, 3, 1)
    for beyond in (0, 13):
        room = tuple(n + beyond for n in wanted.shape[1:3])
        got = slid(recording, arrays["in/image"], room)
        assert_agrees(PEER, "windows: logits", got, wanted, 1e-4)


def test_a_window_is_no_larger_than_the_room(recording):
    arrays, _ = recording
    image = arrays["in/image_small"]
    wanted = arrays["out/slide_small_logits"].transpose(0, 2, 3, 1)
    got = slid(recording, image, image.shape[2:])
    assert_agrees(PEER, "small image: logits", got, wanted, 1e-4)


def test_logits_get_to_the_size_of_the_image_as_recorded(recording):
    arrays, meta = recording
    sheet = inference.Sheet(
        jnp.asarray(arrays["out/slide_logits"].transpose(0, 2, 3, 1)),
        jnp.array([arrays["out/slide_logits"].shape[2:]]),
        jnp.zeros((2, 1), bool),
    )
    size = meta["ori_shape"]
    got = sheet.rows(jnp.arange(size[0]), jnp.array([size]), size[1], "linear")
    wanted = arrays["out/slide_rescaled"].transpose(0, 2, 3, 1)
    assert_agrees(PEER, "original size: logits", got, wanted, 1e-4)


def test_scales_and_mirrors_are_averaged_as_recorded(recording):
    """The images of each scale are given: how they were resized is not tested here."""
    arrays, meta = recording
    size, crop = meta["ori_shape"], (meta["crop"],) * 2
    sheets = []
    for number in range(len(meta["ratios"])):
        image = arrays[f"in/ms_{number}"]
        for flip in (False, True):
            seen = image[..., ::-1] if flip else image
            logits = slid(recording, seen, image.shape[2:])
            sheets.append(
                inference.Sheet(
                    logits, jnp.array([image.shape[2:]]), jnp.array([[False], [flip]])
                )
            )
    for average, name in (
        ("probabilities", "ms_prob"),
        ("logits", "ms_meanlogit_prob"),
    ):
        seeing = inference.build({"average": average, "room": tuple(size)}, crop, 4)
        logs = seeing._logs(sheets, jnp.arange(size[0]), jnp.array([size]), size[1])
        wanted = arrays[f"out/{name}"].transpose(0, 2, 3, 1)
        assert_agrees(PEER, f"views: {name}", jnp.exp(logs), wanted, 1e-4)


@pytest.mark.parametrize(("kind", "reference"), [("area", Image.Resampling.BILINEAR)])
def test_areas_are_resized_as_pillow_does(kind, reference):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (19, 31), np.uint8)
    for size in ((7, 40), (19, 11), (26, 31)):
        wanted = Image.fromarray(image).resize(size[::-1], reference)
        down, across = (
            sampling.matrix(jnp.arange(new), old, new, old, kind=kind)
            for new, old in zip(size, image.shape, strict=True)
        )
        got = np.round(down @ np.round(image.astype(np.float32) @ across.T))
        assert np.abs(got - np.asarray(wanted)).max() <= 1


def colours(image):
    """What a made-up network tells: a class for each third of the levels."""
    thirds = jnp.array([42.0, 127.0, 212.0])
    return -jnp.square(image[..., :1] - thirds) / 100


def seen(image, **settings):
    """Classes (h, w) of one image in a room of 64x64."""
    height, width = image.shape[:2]
    room = np.full((1, 64, 64, 3), 99, np.uint8)
    room[0, :height, :width] = image
    seeing = inference.build(
        {"room": (64, 64), "filter": "linear", **settings}, (16, 16), 4
    )
    labels = jnp.zeros((1, 64, 64), jnp.int32)
    found, nll = jax.jit(functools.partial(seeing, colours))(
        room, jnp.array([[height, width]]), labels
    )
    assert np.isfinite(nll[0, :height, :width]).all()
    return np.asarray(found[0, :height, :width])


def blocks(height: int, width: int) -> np.ndarray:
    """Large areas of three levels, not symmetric."""
    levels = np.array([[30, 130, 220], [220, 30, 130]])
    rows, columns = np.arange(height) * 2 // height, np.arange(width) * 3 // width
    return np.repeat(levels[rows][:, columns, None], 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "whole"},
        {"mode": "whole", "scales": (1.0, 1.5), "flip": True},
        {"mode": "slide"},
        {"mode": "slide", "stride": (5, 7), "scales": (0.5, 1.0), "flip": True},
        {"mode": "slide", "short": 24, "long": 48, "flip": True},
        {"mode": "slide", "short": 24, "long": 48, "map": "nearest", "windows": 3},
        {"mode": "slide", "short": 16, "long": 64, "average": "logits", "flip": True},
    ],
)
@pytest.mark.parametrize("size", [(60, 40), (40, 60)])
def test_the_map_lies_on_the_image(settings, size):
    image = blocks(*size)
    wanted = np.digitize(image[..., 0], [85, 170])
    agree = seen(image, **settings) == wanted
    assert agree.mean() > 0.9  # all but the borders of areas
    centre = agree[3:-3, 2:10]
    assert centre[: size[0] // 2 - 6].all()


def test_an_image_of_the_room_and_of_the_network_is_left_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    wanted = np.asarray(jnp.argmax(colours(image.astype(np.float32)), -1))
    np.testing.assert_array_equal(seen(image, mode="slide"), wanted)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"mode": "crop"}, "mode='crop'"),
        ({"room": (5,)}, "room="),
        ({"scales": ()}, "scales=()"),
        ({"stride": (0, 1)}, "stride="),
        ({"mode": "slide", "short": 30, "long": 20}, "long=20"),
        ({"steps": 1}, "no setting 'steps'"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        inference.build(settings, (16, 16), 4)
