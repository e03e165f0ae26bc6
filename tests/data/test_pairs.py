"""Images and label maps of published data sets, and of any two folders."""

import numpy as np
import pytest
from PIL import Image

from beit_jax.data import sources
from beit_jax.data.ops import decode
from beit_jax.data.sources import BadExample, segment_classes
from tests.data import corpus
from tests.data.trees import pack_bytes
from tests.shared import shared_path


def image(value):
    return corpus.encoded(Image.new("RGB", (4, 3), (value, 0, 0)), "PNG")


def labels(*values):
    pixels = np.resize(np.array(values, np.uint8), (3, 4))
    return corpus.encoded(Image.fromarray(pixels), "PNG")


CITY = "leftImg8bit/train/ulm/ulm_0_0"
CITY_MAP = CITY.replace("leftImg8bit", "gtFine")
# Source -> its files, and the classes of the one map that its train split has.
PUBLISHED = {
    "ade20k": (
        {
            "A/images/training/x.jpg": image(1),
            "A/annotations/training/x.png": labels(0, 1, 150),
            "A/images/validation/y.jpg": image(2),
            "A/annotations/validation/y.png": labels(0),
            "A/objectInfo150.txt": b"",
        },
        [255, 0, 149],
    ),
    "cityscapes": (
        {
            f"{CITY}_leftImg8bit.png": image(1),
            f"{CITY_MAP}_gtFine_labelIds.png": labels(7, 33, 6, 0),
            f"{CITY_MAP}_gtFine_color.png": image(9),
        },
        [0, 18, 255],
    ),
    "voc": (
        {
            "VOC2012/ImageSets/Segmentation/train.txt": b"x\n",
            "VOC2012/JPEGImages/x.jpg": image(1),
            "VOC2012/JPEGImages/y.jpg": image(2),
            "VOC2012/SegmentationClass/x.png": labels(0, 20, 255),
        },
        [0, 20, 255],
    ),
    "camvid": (
        {
            "train.txt": b"/SegNet/CamVid/train/x.png /SegNet/CamVid/trainannot/x.png",
            "train/x.png": image(1),
            "trainannot/x.png": labels(0, 10, 11),
        },
        [0, 10, 255],
    ),
}


def build(path, **settings):
    return sources.build({"name": "segments", "path": str(path), **settings})


def write(root, files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_layout_is_found_and_its_numbers_are_classes(name, tmp_path):
    files, want = PUBLISHED[name]
    settings = {"name": name, "split": "train"}
    archive = str(pack_bytes(files, tmp_path / "set.zip"))
    folder = str(write(tmp_path / "set", files))
    for path in (folder, archive):
        source = sources.build({**settings, "path": path})
        assert source.info.num_examples == 1
        record = source.read(0)
        assert record.image == image(1)
        made = np.asarray(decode.to_labels(record.label_map, (4, 3)))
        assert {*made.ravel().tolist()} == {*want}
        assert max(c for c in want if c < 255) == len(source.info.class_names) - 1
    with pytest.raises(ValueError, match="no split 'training' of .* it has train, val"):
        sources.build({**settings, "path": folder, "split": "training"})


def test_colours_are_one_a_class_and_by_vocs_rule():
    for name in PUBLISHED:
        kind = sources.SOURCES[name]
        assert len(kind.colours) == len(kind.class_names) == len({*kind.class_names})
    made = segment_classes.made(256)
    assert made[1:4] == ((128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert made[20] == (0, 64, 128) and len({*made}) == 256


def test_camvid_of_the_shared_pack_has_segnets_splits():
    settings = {"name": "camvid", "path": str(shared_path("data/camvid/camvid.tar"))}
    for split, count in {"train": 367, "val": 101, "test": 233}.items():
        assert sources.build(settings | {"split": split}).info.num_examples == count


FILES = {
    "images/a.jpg": image(1),
    "images/b.png": image(2),
    "masks/a.png": labels(0, 1),
    "masks/b.png": labels(1),
}
NAMES = ("cat", "dog")


def test_two_folders_pair_by_name_and_a_list_chooses(tmp_path):
    root = write(tmp_path, FILES | {"val.txt": b"b.png\n\n", "odd.txt": b"c\nb\n"})
    source = build(root, class_names=NAMES)
    assert [source.read(i).image for i in range(2)] == [image(1), image(2)]
    assert source.info.class_names == NAMES
    chosen = build(root, class_names=NAMES, listed="val.txt")
    assert chosen.info.num_examples == 1 and chosen.read(0).image == image(2)
    with pytest.raises(ValueError, match="names 1 that are not there, c"):
        build(root, class_names=NAMES, listed="odd.txt")
    with pytest.raises(ValueError, match=r"no list 'no.txt'"):
        build(root, class_names=NAMES, listed="no.txt")


def test_images_and_maps_may_share_a_folder(tmp_path):
    files = {"set/a.jpg": image(1), "set/a_mask.png": labels(0)}
    settings = {"images": "set", "maps": "set", "map_end": "_mask"}
    source = build(write(tmp_path, files), class_names=NAMES, **settings)
    assert source.info.num_examples == 1
    assert source.read(0).label_map == labels(0)


def test_what_has_no_partner_is_told(tmp_path):
    alone = {"images/c.png": image(3), "masks/d.png": labels(0)}
    source = build(write(tmp_path, FILES | alone), class_names=NAMES)
    with pytest.raises(BadExample, match="images/c.png has no label map"):
        source.read(2)
    assert "without an image, which are left out: 1, masks/d.png" in source.notes[0]
    with pytest.raises(ValueError, match="no label maps at .* looked for 'labels'"):
        build(tmp_path, class_names=NAMES, maps="labels")
    write(tmp_path, {"images/c.jpg": image(4)})
    with pytest.raises(ValueError, match=r"images/c.jpg and images/c.png differ only"):
        build(tmp_path, class_names=NAMES)


def test_other_meanings_of_the_maps_are_other_data(tmp_path):
    root = write(tmp_path, FILES)
    digests = {
        build(root, class_names=NAMES, labels=labels).info.digest
        for labels in ({}, {"ids": [0, 1]}, {"reduce_zero_label": True})
    }
    assert len(digests) == 3


def test_a_list_has_the_same_meanings(tmp_path):
    root = write(
        tmp_path, FILES | {"l.csv": b"image,label_map\nimages/a.jpg,masks/a.png"}
    )
    settings = {"name": "list", "path": str(root / "l.csv"), "class_names": NAMES}
    record = sources.build(settings | {"labels": {"ids": [1, 0]}}).read(0)
    made = np.asarray(decode.to_labels(record.label_map, (4, 3)))
    assert made[0].tolist() == [1, 0, 1, 0]
    assert sources.build(settings).read(0).label_map == labels(0, 1)
