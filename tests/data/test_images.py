"""Images at paths: their order, and what can be such a path."""

import pytest

from beit_jax.data import sources
from beit_jax.data.sources.images import Images
from tests.data.trees import make_tree, pack, png, read_all

CLASSES = ("cat", "dog")


def names(*paths) -> list[str]:
    source = Images([str(path) for path in paths])
    return [source.describe(i) for i in range(source.info.num_examples)]


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "set")


def test_images_keep_the_order_of_their_paths(tree, tmp_path):
    (tmp_path / "z").write_bytes(png(7))  # by itself, its name needs no suffix
    (tree / "top.png").write_bytes(png(8))  # beside class folders
    cats, dogs = ([f"{tree}/test/{n}/{i}.png" for i in range(3)] for n in CLASSES)
    assert names(tmp_path / "z", tree / "test", cats[1]) == [
        f"{tmp_path}/z",
        *cats,
        *dogs,
        cats[1],
    ]
    assert names(tree)[5:7] == [dogs[2], f"{tree}/top.png"]
    assert Images([str(tmp_path / "z")]).read(0) == sources.Record(png(7))


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
def test_an_archive_stands_for_the_images_in_it(tree, suffix):
    packed = Images([str(pack(tree, tree.parent / f"set{suffix}"))])
    assert read_all(packed) == read_all(Images([str(tree)]))
    assert packed.describe(0) == f"{tree.parent}/set{suffix}/set/test/cat/0.png"


def test_an_archive_is_known_by_its_content_too(tree):
    path = pack(tree, tree.parent / "set.zip").rename(tree.parent / "set.cbz")
    assert read_all(Images([str(path)])) == read_all(Images([str(tree)]))


def test_what_is_left_out_beside_images_is_told(tree):
    (note,) = Images([str(tree), str(tree / "test")]).notes
    assert "1 of 13 files are left out" in note and note.endswith(": .md 1")


def test_what_holds_no_image_is_told(tmp_path):
    with pytest.raises(ValueError, match="no file, folder or archive '.*/gone.png'"):
        Images([str(tmp_path / "gone.png")])
    (tmp_path / "README.md").write_text("not an image")
    with pytest.raises(ValueError, match="no images at .*; looked for .bmp"):
        Images([str(tmp_path)])
    with pytest.raises(ValueError, match="no path is given"):
        Images([])
