"""Sources in a bucket give what those in a folder give."""

import csv
import pathlib
import tarfile

import pytest

from beit_jax.data import sources
from beit_jax.data.sources.base import BadExample
from beit_jax.data.sources.images import Images
from beit_jax.stores import Store
from tests.data.trees import make_tree, pack, png


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with images in every form, and the URL of its copy in a store."""
    place = tmp_path_factory.mktemp("place")
    tree = make_tree(place / "images")
    for kind in (".zip", ".tar", ".tar.gz"):
        pack(tree, place / f"images{kind}")
    with (place / "list.csv").open("w", newline="") as file:
        lines = [(f"images/train/cat/{i}.png", "cat") for i in range(3)]
        csv.writer(file).writerows([("image", "label"), *lines])
    for shard in range(2):
        with tarfile.open(place / f"shard-{shard}.tar", "w") as archive:
            for name, data in (("a.png", png(shard)), ("a.cls", b"0")):
                (place / name).write_bytes(data)
                archive.add(place / name, name)
                (place / name).unlink()
    store = Store(f"memory://{place.name}")
    files = [path for path in place.rglob("*") if path.is_file()]
    store.put(place, [path.relative_to(place).as_posix() for path in files])
    return place, store.url


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BEIT_JAX_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    "name, path",
    [
        ("folder", "images/train"),
        ("folder", "images.zip"),
        ("folder", "images.tar"),
        ("folder", "images.tar.gz"),
        ("list", "list.csv"),
        ("webdataset", "shard-{0..1}.tar"),
        ("webdataset", "shard-*.tar"),
    ],
)
def test_a_source_in_a_bucket_is_the_same_as_in_a_folder(name, path, place):
    here, there = (
        sources.build({"name": name, "path": f"{root}/{path}"}) for root in place
    )
    assert here.info == there.info
    for index in range(here.info.num_examples):
        assert here.read(index) == there.read(index)
        if name != "webdataset":
            place_of = there.describe(index).removeprefix(place[1])
            assert place_of == here.describe(index).removeprefix(str(place[0]))


def test_images_of_a_bucket_can_be_named_one_by_one(place):
    _, url = place
    found = Images([f"{url}/images/test", f"{url}/images/train/dog/1.png"])
    assert [found.describe(i) for i in (0, 6)] == [
        f"{url}/images/test/cat/0.png",
        f"{url}/images/train/dog/1.png",
    ]
    assert found.read(6).image == png(110)


def test_what_is_not_in_the_bucket_is_said(place):
    _, url = place
    with pytest.raises(ValueError, match="no images at .*/nowhere"):
        sources.build({"name": "folder", "path": f"{url}/nowhere"})
    with pytest.raises(ValueError, match=r"there is no file '.*/no\.zip'"):
        sources.build({"name": "folder", "path": f"{url}/no.zip"})
    with pytest.raises(ValueError, match=r"no \.tar files at"):
        sources.build({"name": "webdataset", "path": f"{url}/images/train"})
    with pytest.raises(BadExample, match=r"cannot read .*/images/gone\.png"):
        Images([f"{url}/images/gone.png"]).read(0)


def test_a_name_beside_this_folder_is_told_as_it_was_given(tmp_path, monkeypatch):
    make_tree(tmp_path)
    monkeypatch.chdir(tmp_path / "train" / "cat")
    pathlib.Path("x").mkdir()
    assert [Images([p]).describe(0) for p in (".", "0.png", "./0.png")] == ["0.png"] * 3
