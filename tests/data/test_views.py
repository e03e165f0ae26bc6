"""Views: the official order of operations, exactly; annotations that follow."""

import types

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from beit_jax import lookup
from beit_jax.data import frames
from beit_jax.data.frame import Frame
from beit_jax.data.ops import colour, decode, geometry, randaugment
from beit_jax.data.ops.geometry import Box
from beit_jax.data.settings import Augment
from beit_jax.data.sources import BadExample, Record
from beit_jax.data.views import Views
from tests.data import corpus

DTYPES = {"label": np.int32, "labels_2d": np.int32, "boxes": np.float32}
FRAME = {"name": "random_resized", "min_scale": 0.3}
PHOTOGRAPH = Image.fromarray(
    np.random.RandomState(3).randint(0, 256, (9, 12, 3)).astype(np.uint8)
).resize((120, 90), Image.Resampling.BICUBIC)
RECORD = Record(corpus.encoded(PHOTOGRAPH, "PNG"), label=2)


def make(settings=(), shapes=(), frame=FRAME, training=True, **options):
    shapes = {"image": (32, 32, 3), "token_image": (16, 16, 3), **dict(shapes)}
    spec = {
        name: types.SimpleNamespace(shape=shape, dtype=np.dtype(DTYPES.get(name, "u1")))
        for name, shape in shapes.items()
    }
    framing = lookup.build(frames.FRAMES, frame, "data.frame")
    settings = Augment.from_config(dict(settings))
    return Views(settings, spec, framing, training, **options)


def uniforms(views, seed=0, **given):
    random = np.random.RandomState(seed)
    return {name: random.rand(count) for name, count in views.numbers.items()} | given


def shown(views, record=RECORD, seed=0, **given):
    return views.make(record, views.open(record), uniforms(views, seed, **given))


def official_order(u, strength=0.4):
    """Jitter, mirror, crop, two sizes, with Pillow's own operations.

    Mirrored before it is cropped, the image shows the mirrored box.
    """
    enhance = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "saturation": ImageEnhance.Color,
    }
    image = PHOTOGRAPH
    for name, factor in colour.jitter_steps(strength, u["jitter"]):
        image = enhance[name](image).enhance(factor)
    top, left, height, width = geometry.random_box(u["crop"], 90, 120, (0.3, 1.0))
    if u["flip"][0] < 0.5:
        image, left = ImageOps.mirror(image), 120 - left - width
    cut = image.crop((left, top, left + width, top + height))
    return (
        cut.resize((32, 32), Image.Resampling.BICUBIC),
        cut.resize((16, 16), Image.Resampling.LANCZOS),
    )


@pytest.mark.parametrize("seed", range(6))
def test_pretraining_views_are_the_official_ones(seed):
    views = make({"jitter": 0.4})
    made = shown(views, seed=seed)
    for name, want in zip(
        ("image", "token_image"), official_order(uniforms(views, seed)), strict=True
    ):
        np.testing.assert_array_equal(made[name], want)


def test_both_views_show_one_box():
    """In an image whose pixels are their coordinates, equal places look equal."""
    ramp = np.zeros((64, 64, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(64)[:, None] * 4, np.arange(64) * 4
    for seed in range(8):
        made = shown(make(), Record(ramp), seed)
        halved = made["image"].reshape(16, 2, 16, 2, 3).mean((1, 3))
        inner = np.abs(halved - made["token_image"])[2:-2, 2:-2]
        assert inner.max() <= 4  # one pixel of the image


def test_views_of_one_size_and_filter_are_the_same_pixels():
    same = {"token_image": (32, 32, 3)}
    made = shown(make({"token_interpolation": "bicubic"}, shapes=same))
    np.testing.assert_array_equal(made["image"], made["token_image"])
    made = shown(make(shapes=same))
    assert (made["image"] != made["token_image"]).any()


def test_a_token_view_of_the_first_view_is_close_to_one_of_the_image():
    ours, cheap = shown(make()), shown(make({"token_view": "first_view"}))
    np.testing.assert_array_equal(ours["image"], cheap["image"])
    difference = np.abs(ours["token_image"].astype(int) - cheap["token_image"])
    assert 0 < difference.mean() < 4


def test_jitter_after_the_crop_sees_the_crop_only():
    """Contrast pulls towards the mean of what is seen; on the image that differs."""
    u = {"jitter": np.array([0.5, 0.0, 0.5, 0.0])}  # contrast 0.6, all else 1
    plain = shown(make(), **u)["image"].astype(float)
    view = shown(make({"jitter": 0.4, "jitter_on": "view"}), **u)["image"]
    grey = np.asarray(Image.fromarray(plain.astype(np.uint8)).convert("L"))
    want = np.floor(0.6 * plain + 0.4 * int(grey.mean() + 0.5))
    assert np.abs(view - want).max() <= 1
    on_image = shown(make({"jitter": 0.4}), **u)["image"]
    assert np.abs(on_image - want).max() > 1


def test_jitter_on_the_device_leaves_the_pixels_and_ships_the_steps():
    shapes = {"jitter": (3, 2)}
    made = shown(make({"jitter": 0.4, "jitter_on": "device"}, shapes=shapes))
    np.testing.assert_array_equal(made["image"], shown(make())["image"])
    assert sorted(made["jitter"][:, 0]) == [0, 1, 2]
    assert ((made["jitter"][:, 1] >= 0.6) & (made["jitter"][:, 1] <= 1.4)).all()


def test_randaugment_follows_crop_and_mirror():
    policy = "rand-m9-mstd0.5-inc1"
    views = make({"randaugment": policy, "fill": (1, 2, 3)})
    u = uniforms(views, 4)
    plain = Image.fromarray(shown(make(), crop=u["crop"], flip=u["flip"])["image"])
    rows = u["randaugment"].reshape(2, -1)
    rows[:, 1] = 0  # both layers act
    want = randaugment.apply(plain, randaugment.Policy.parse(policy), rows, (1, 2, 3))
    np.testing.assert_array_equal(shown(views, **u)["image"], want)
    assert np.any(np.asarray(want) != np.asarray(plain))


def test_a_purpose_does_not_change_the_numbers_of_the_others():
    plain, erasing = make(), make({"erase": 0.25}, shapes={"erase": (4,)})
    assert plain.numbers.items() <= erasing.numbers.items()


def test_erasing_and_mixing_are_shipped_as_parameters():
    shapes = {"erase": (4,), "erase_seed": (), "mix": (5,)}
    views = make({"erase": 1.0, "mixup": 0.8, "cutmix": 1.0}, shapes=shapes)
    made = shown(views)
    assert made["erase"].dtype == np.int32 and made["erase"][2:].min() > 0
    assert made["erase_seed"].dtype == np.uint32
    assert made["mix"].dtype == np.float32 and 0 <= made["mix"][0] <= 1


def test_tiny_images_are_shifted_in_black_padding():
    views = make({"flip": False}, frame={"name": "pad", "pad": 4})
    pixels = np.full((32, 32, 3), 200, np.uint8)
    made = shown(views, Record(pixels), crop=np.zeros(2))["image"]
    assert (made[:4] == 0).all() and (made[:, :4] == 0).all()
    assert (made[4:, 4:] == 200).all()
    with pytest.raises(BadExample, match="20x40; frame 'pad' .* needs 24x24"):
        shown(views, Record(pixels[:20].repeat(2, 1)[:, :40]))


@pytest.mark.parametrize("seed", range(3))
def test_square_views_are_dalles_box_averaged_over_areas(seed):
    settings = {"interpolation": "area", "flip": False}
    views = make(settings, frame={"name": "square"})
    u = uniforms(views, seed)
    top, left, side, _ = geometry.square_box(u["crop"], 90, 120, 32)
    cut = PHOTOGRAPH.crop((left, top, left + side, top + side))
    want = cut.resize((32, 32), Image.Resampling.BOX)
    np.testing.assert_array_equal(shown(views, **u)["image"], want)


def test_square_views_of_another_shape_are_refused_before_any_work():
    with pytest.raises(ValueError, match="square views, not 32x24; use 'random_res"):
        make(shapes={"image": (32, 24, 3)}, frame={"name": "square"})


def test_any_frame_may_train_or_evaluate():
    """A drawn one shows the same box at every size, and the same in every pass."""
    ramp = np.zeros((64, 64, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(64)[:, None] * 4, np.arange(64) * 4
    for name in frames.FRAMES:
        frame = {"name": name} | ({"pad": 2} if name == "pad" else {})
        for training in (False, True):
            views = make(frame=frame, training=training)
            assert views.numbers.keys() == {"crop", *(["flip"] if training else [])}
            made = shown(views, Record(ramp), 1)
            halved = made["image"].reshape(16, 2, 16, 2, 3).mean((1, 3))
            inner = np.abs(halved - made["token_image"])[3:-3, 3:-3]
            assert np.median(inner) <= 4, name  # one pixel of the image


@pytest.mark.parametrize("pct", [1.0, 0.875])
def test_evaluation_views_are_centre_cuts(pct):
    views = make(frame={"name": "centre", "crop_pct": pct}, training=False)
    made = shown(views)
    for name, size, resample in (
        ("image", 32, "bicubic"),
        ("token_image", 16, "lanczos"),
    ):
        frame = frames.Centre(pct)(None, (90, 120), (size, size))
        want = frame.image(PHOTOGRAPH, geometry.FILTERS[resample])
        np.testing.assert_array_equal(made[name], want)


def coordinates():
    """A label map that is 200 within a box and 3 elsewhere, and that box."""
    labels = np.full((90, 120), 3)
    labels[20:50, 30:90] = 200
    return labels, np.array([[20, 30, 50, 90]], np.float32)


@pytest.mark.parametrize("frame", [FRAME | {"min_scale": 0.8}, {"name": "centre"}])
@pytest.mark.parametrize("training", [True, False])
def test_label_maps_and_boxes_follow_the_image(frame, training):
    """Where the image is red, the label is 200 and the box lies."""
    labels, boxes = coordinates()
    image = np.zeros((90, 120, 3), np.uint8)
    image[labels == 200, 0] = 255
    record = Record(image, 0, labels, boxes, np.array([7], np.int32))
    shapes = {"labels_2d": (32, 32), "boxes": (3, 4), "classes": (3,), "valid": (3,)}
    views = make(shapes=shapes, frame=frame, training=training)
    for seed in range(4):
        made = shown(views, record, seed)
        red = made["image"][..., 0] > 128
        assert ((made["labels_2d"] == 200) != red).mean() < 0.06
        np.testing.assert_array_equal(made["valid"], [True, False, False])
        np.testing.assert_array_equal(made["classes"], [7, 0, 0])
        rows, columns = np.nonzero(red)
        want = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
        np.testing.assert_allclose(made["boxes"][0], want, atol=1.5)


@pytest.mark.parametrize(
    ("record", "shapes", "classes", "message"),
    [
        (RECORD, {"label": ()}, 2, r"label is 2; labels must be in 0 \.\. 1"),
        (RECORD._replace(label=-1), {"label": ()}, 3, "label is -1"),
        (RECORD._replace(label=None), {"label": ()}, 3, "no label, and"),
        (RECORD, {"labels_2d": (8, 8)}, 0, "no label map"),
        (RECORD, {"boxes": (1, 4)}, 0, "no boxes with classes"),
        (
            RECORD._replace(boxes=np.zeros((1, 4))),
            {"boxes": (1, 4)},
            0,
            "no boxes with classes",
        ),
        (
            RECORD._replace(label_map=np.zeros((4, 4), int)),
            {"labels_2d": (8, 8)},
            0,
            "label map is 4x4, its image 120x90",
        ),
        (
            RECORD._replace(boxes=np.array([[0, 0, 90, 120]] * 2), classes=np.zeros(2)),
            {"boxes": (1, 4)},
            0,
            "2 objects; the task has room for 1",
        ),
    ],
)
def test_annotations_that_do_not_fit_are_refused(record, shapes, classes, message):
    with pytest.raises(BadExample, match=message):
        shown(make(shapes=shapes, classes=classes), record)


def test_large_jpegs_may_be_decoded_smaller():
    large = PHOTOGRAPH.resize((1200, 900), Image.Resampling.BICUBIC)
    record = Record(corpus.encoded(large, "JPEG", quality=95))
    exact, fast = shown(make(), record), shown(make(dct_scaled=True), record)
    difference = np.abs(exact["image"].astype(int) - fast["image"])
    assert 0 < difference.mean() < 3
    image = decode.open_image(record.image)
    everything = Frame((900, 1200), (900, 1200), Box(0, 0, 900, 1200), (32, 32))
    make(dct_scaled=True)._decoded(image, everything)
    assert image.size == (150, 113)


def test_small_images_are_decoded_whole_even_so():
    record = Record(corpus.encoded(PHOTOGRAPH.resize((40, 40)), "JPEG"))
    exact, fast = shown(make(), record), shown(make(dct_scaled=True), record)
    np.testing.assert_array_equal(exact["image"], fast["image"])


@pytest.mark.parametrize("name", ["dct_scaled", "apply_exif"])
def test_labels_of_pixels_refuse_what_they_would_not_follow(name):
    with pytest.raises(ValueError, match=f"data.{name} is for images without"):
        make(shapes={"labels_2d": (8, 8)}, **{name: True})


def test_jitter_of_the_image_leaves_the_padding_black():
    views = make({"flip": False, "jitter": 1.0}, frame={"name": "pad", "pad": 4})
    jitter = np.array([0.5, 0.1, 0.5, 0.0])  # contrast to a fifth: black turns grey
    pixels = np.full((32, 32, 3), 200, np.uint8)
    made = shown(views, Record(pixels), crop=np.zeros(2), jitter=jitter)
    assert (made["image"][:4] == 0).all() and (made["image"][4:, 4:] > 0).all()


def test_exif_is_applied_only_when_asked_for():
    data, _ = corpus.good()["exif_turned.jpg"]
    assert make().open(Record(data)).size == corpus.SIZE
    assert make(apply_exif=True).open(Record(data)).size == corpus.SIZE[::-1]
