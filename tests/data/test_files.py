"""Files from folders and archives: the same everywhere, and damage is named."""

import concurrent.futures
import os
import tarfile
import zipfile

import pytest

from beit_jax import cache
from beit_jax.data.sources import archives
from beit_jax.data.sources.base import BadExample
from beit_jax.data.sources.files import KINDS, open_files
from tests.data.trees import make_tree, pack, pack_bytes


def everything(name):
    return True


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "set")


@pytest.mark.parametrize("suffix", KINDS)
def test_an_archive_holds_the_files_of_its_folder(tree, suffix):
    packed = open_files(str(pack(tree, tree.parent / f"set{suffix}")), everything)
    unpacked = open_files(str(tree.parent / "set"), everything)
    assert packed.names() == [f"set/{name}" for name in unpacked.names()]
    assert len(packed.names()) == 13
    for name in unpacked.names():
        assert packed.read(f"set/{name}") == unpacked.read(name)


@pytest.mark.parametrize("suffix", ["", *KINDS])
def test_eight_threads_read_what_one_does(tmp_path, suffix):
    data = {f"{i:03}": bytes([i]) * (1 + 997 * i) for i in range(200)}
    path = tmp_path / f"files{suffix}"
    if suffix:
        pack_bytes(data, path)
    else:
        path.mkdir()
        for name, content in data.items():
            (path / name).write_bytes(content)
    files = open_files(str(path), everything)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        read = list(threads.map(files.read, [*data] * 5))
    assert read == [*data.values()] * 5


@pytest.mark.parametrize("suffix", KINDS)
def test_only_wanted_files_are_listed(tree, suffix):
    path = pack(tree, tree.parent / f"set{suffix}")
    files = open_files(str(path), lambda name: name.endswith("dog/1.png"))
    assert files.names() == ["set/test/dog/1.png", "set/train/dog/1.png"]
    assert files.missing(["set/train/dog/1.png", "set/x"]) == ["set/x"]


@pytest.mark.parametrize("suffix", KINDS)
def test_hidden_files_of_archives_are_ignored(tmp_path, suffix):
    names = ("./a", ".b", "c/.d/e", "__MACOSX/f", "g/._h", "/i")
    path = pack_bytes(dict.fromkeys(names, b"x"), tmp_path / f"files{suffix}")
    assert open_files(str(path), everything).names() == ["a", "i"]


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("name", ["../secret", "a/../../secret", ".."])
def test_names_that_lead_out_of_an_archive_are_refused(tmp_path, suffix, name):
    (tmp_path / "secret").write_bytes(b"outside")
    (tmp_path / "in").mkdir()
    path = pack_bytes({name: b"inside"}, tmp_path / "in" / f"files{suffix}")
    with pytest.raises(ValueError, match=r"files.*leads out of its folder"):
        open_files(str(path), everything)
    assert (tmp_path / "secret").read_bytes() == b"outside"


@pytest.mark.parametrize("suffix", KINDS)
def test_an_absolute_name_reads_the_archive_and_not_the_disk(tmp_path, suffix):
    outside = tmp_path / "secret"
    outside.write_bytes(b"outside")
    path = pack_bytes({str(outside): b"inside"}, tmp_path / f"files{suffix}")
    files = open_files(str(path), everything)
    assert [files.read(name) for name in files.names()] == [b"inside"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_what_is_no_plain_file_of_a_tar_is_ignored(tmp_path, kind):
    with tarfile.open(tmp_path / "files.tar", "w") as archive:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = kind, "/etc/hostname"
        archive.addfile(member)
    assert open_files(str(tmp_path / "files.tar"), everything).names() == []


def test_links_of_a_zip_are_ignored(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "files.zip", "w") as archive:
        archive.writestr(link, "/etc/hostname")
    assert open_files(str(tmp_path / "files.zip"), everything).names() == []


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9])
def test_a_cut_archive_is_named(tree, suffix, keep):
    path = pack(tree, tree.parent / f"set{suffix}")
    data = path.read_bytes()
    # A tar ends in padding, whose loss does no harm.
    path.write_bytes(data[: int(keep * len(data.rstrip(b"\0")))])
    with pytest.raises(ValueError, match=f"set{suffix} is cut off or damaged.*again"):
        open_files(str(path), everything)


def test_a_tar_cut_between_two_files_is_noticed(tmp_path):
    path = pack_bytes({"a": bytes(512), "b": bytes(512)}, tmp_path / "files.tar")
    path.write_bytes(path.read_bytes()[:1024])
    with pytest.raises(ValueError, match="no end-of-archive mark"):
        open_files(str(path), everything)


def test_a_damaged_header_does_not_hide_the_rest_of_a_tar(tmp_path):
    path = pack_bytes(dict.fromkeys("abc", b"x"), tmp_path / "files.tar")
    data = bytearray(path.read_bytes())
    data[1024 + 3] ^= 1  # in the name of the second file
    path.write_bytes(data)
    with pytest.raises(ValueError, match="files.tar is cut off or damaged"):
        open_files(str(path), everything)


def test_a_flipped_bit_in_a_tar_gz_is_noticed(tmp_path):
    path = pack_bytes({"a": os.urandom(5000)}, tmp_path / "files.tar.gz")
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="files.tar.gz is cut off or damaged"):
        open_files(str(path), everything)


def test_a_flipped_bit_in_a_zip_is_named_with_its_file(tmp_path):
    path = pack_bytes({"a": b"A" * 99, "b": b"B" * 99}, tmp_path / "files.zip")
    path.write_bytes(path.read_bytes().replace(b"BB", b"Bb", 1))
    files = open_files(str(path), everything)
    assert files.read("a") == b"A" * 99
    with pytest.raises(BadExample, match="files.zip/b: Bad CRC-32"):
        files.read("b")


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_an_archive_that_changes_while_it_is_read_is_refused(tmp_path, suffix):
    path = pack_bytes({"a": b"old"}, tmp_path / f"files{suffix}")
    files = open_files(str(path), everything)
    assert files.read("a") == b"old"
    with open(path, "ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match="has changed since it was opened"):
        files.read("a")


def test_a_tar_gz_beyond_the_memory_limit_names_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MEMORY_LIMIT", 1000)
    path = pack_bytes({"a": bytes(600), "b": bytes(600)}, tmp_path / "files.tar.gz")
    with pytest.raises(ValueError, match="more than 1000 bytes.*gunzip --keep"):
        open_files(str(path), everything)
    assert open_files(str(path), lambda name: name == "a").names() == ["a"]


def test_an_encrypted_zip_is_refused(tmp_path):
    path = pack_bytes({"a": b"x"}, tmp_path / "files.zip")
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="files.zip/a is encrypted"):
        open_files(str(path), everything)


def test_a_missing_file_of_a_folder_is_a_bad_example(tmp_path):
    with pytest.raises(BadExample, match="cannot read .*gone: No such file"):
        open_files(str(tmp_path), everything).read("gone")


def test_a_link_to_a_folder_above_is_refused_and_one_elsewhere_followed(tree):
    os.symlink(tree / "train", tree.parent / "linked")
    os.symlink(tree.parent / "linked" / "cat", tree / "train" / "lynx")
    assert "train/lynx/0.png" in open_files(str(tree), everything).names()
    os.symlink(tree, tree / "train" / "again")
    with pytest.raises(ValueError, match="again links to a folder that it lies in"):
        open_files(str(tree), everything).names()


def test_links_in_a_circle_are_refused(tree):
    """Each of them links to a folder that it does not lie in by its own path."""
    os.symlink(tree / "test", tree / "train" / "there")
    os.symlink(tree / "train", tree / "test" / "back")
    with pytest.raises(ValueError, match=r"links to a folder that it lies in, .*set/t"):
        open_files(str(tree), everything).names()


def test_a_pipe_is_a_bad_example_and_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    files = open_files(str(tmp_path), everything)
    assert files.names() == ["a.jpg"]
    with pytest.raises(BadExample, match="a.jpg is a pipe or a device"):
        files.read("a.jpg")


@pytest.fixture
def large_tar(tmp_path, monkeypatch):
    monkeypatch.setenv("BEIT_JAX_CACHE", str(tmp_path / "cache"))
    files = {f"{i:060}": bytes([i % 256]) for i in range(2000)}
    return pack_bytes(files, tmp_path / "files.tar")


def test_the_index_of_a_large_tar_is_kept_and_used(large_tar, tmp_path, monkeypatch):
    first = open_files(str(large_tar), everything)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    monkeypatch.setattr(archives, "_tar_index", None)  # cannot be called any more
    second = open_files(str(large_tar), everything)
    assert second.names() == first.names()
    assert all(second.read(name) == first.read(name) for name in first.names())


def test_a_changed_tar_is_indexed_anew(large_tar, tmp_path):
    open_files(str(large_tar), everything)
    pack_bytes({f"new{i:057}": b"new" for i in range(2000)}, large_tar)
    files = open_files(str(large_tar), everything)
    assert files.read(f"new{7:057}") == b"new" and len(files.names()) == 2000
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_damaged_index_is_made_again(large_tar, tmp_path):
    names = open_files(str(large_tar), everything).names()
    (cache,) = (tmp_path / "cache").iterdir()
    good = cache.read_bytes()
    for bad in (b"", good[:1000], good[:5000] + b"x" + good[5001:]):
        cache.write_bytes(bad)
        assert open_files(str(large_tar), everything).names() == names


def test_without_a_place_for_the_index_reading_goes_on(large_tar, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert len(open_files(str(large_tar), everything).names()) == 2000


def test_a_small_tar_leaves_nothing_in_the_cache_folder(tree, monkeypatch):
    monkeypatch.setenv("BEIT_JAX_CACHE", str(tree.parent / "cache"))
    open_files(str(pack(tree, tree.parent / "set.tar")), everything)
    assert not (tree.parent / "cache").exists()


def test_the_cache_folder_follows_the_environment(monkeypatch):
    monkeypatch.delenv("BEIT_JAX_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert str(cache.folder()) == "/somewhere/beit_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert str(cache.folder()).endswith("/.cache/beit_jax")
