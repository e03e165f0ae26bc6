"""Archives from elsewhere: called otherwise, packed otherwise, or none at all."""

import bz2
import gzip
import lzma
import zipfile

import pytest

from beit_jax.data.sources import archives
from beit_jax.data.sources.base import BadExample, DataError
from beit_jax.data.sources.files import KINDS, open_files
from tests.data.trees import pack_bytes


def everything(name):
    return True


@pytest.mark.parametrize("named", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_is_what_it_holds_and_not_what_it_is_called(tmp_path, named, kind):
    path = pack_bytes({"a/b": b"x", "c": b"y"}, tmp_path / f"files{kind}")
    files = open_files(str(path.rename(tmp_path / f"other{named}")), everything)
    assert [files.read(name) for name in files.names()] == [b"x", b"y"]


@pytest.mark.parametrize("suffix", [*KINDS, ".tar.bz2", ""])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<!DOCTYPE html><html>Log in", "is a web page.*download it again"),
        (b'{"error": "not found"}', "JSON.*download it again"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (bz2.compress(b"x"), "compressed by bzip2, xz or zstd; unpack it"),
        (lzma.compress(b"x"), "compressed by bzip2, xz or zstd; unpack it"),
        (b"7z\xbc\xaf\x27\x1c", "of 7-Zip or RAR"),
    ],
)
def test_what_is_no_archive_is_told_by_its_content(tmp_path, suffix, data, reason):
    path = tmp_path / f"files{suffix}"
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"files{suffix} is no archive .*{reason}"):
        open_files(str(path), everything)


def test_a_gzip_of_no_tar_says_so(tmp_path):
    path = tmp_path / "files.tar.gz"
    path.write_bytes(gzip.compress(b"\xff\xd8\xff" * 300))
    with pytest.raises(DataError, match="compressed begins as no tar archive"):
        open_files(str(path), everything)


@pytest.mark.parametrize("made_on", [0, 3])
def test_backslashes_of_a_zip_lie_between_folders(tmp_path, made_on):
    """Of one made on Windows (0), and of any that has no slash at all."""
    with zipfile.ZipFile(tmp_path / "files.zip", "w") as archive:
        for name in ("set\\", "set\\cat\\0.png", "set\\dog\\1.png"):
            member = zipfile.ZipInfo(name)
            member.create_system = made_on
            archive.writestr(member, name[-5:])
    files = open_files(str(tmp_path / "files.zip"), everything)
    assert files.names() == ["set/cat/0.png", "set/dog/1.png"]
    assert files.read("set/cat/0.png") == b"0.png"


def test_backslashes_of_a_zip_lead_out_of_nothing(tmp_path):
    path = pack_bytes({"..\\a": b"x"}, tmp_path / "files.zip")
    with pytest.raises(ValueError, match="leads out of its folder"):
        open_files(str(path), everything)


def test_a_backslash_beside_slashes_is_part_of_a_name(tmp_path):
    path = pack_bytes({"a/b\\c": b"x"}, tmp_path / "files.zip")
    assert open_files(str(path), everything).names() == ["a/b\\c"]


def test_a_file_that_would_fill_the_memory_is_not_inflated(tmp_path, monkeypatch):
    path = tmp_path / "files.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("small", b"x")
        archive.writestr("bomb.png", bytes(5000))
    monkeypatch.setattr(archives, "INFLATED_LIMIT", 4999)
    files = open_files(str(path), everything)
    assert files.read("small") == b"x"
    monkeypatch.setattr(zipfile.ZipFile, "read", None)  # would inflate
    with pytest.raises(BadExample, match=r"zip/bomb.png would unpack from .. to 5000"):
        files.read("bomb.png")


def test_a_zip_that_lies_about_a_size_inflates_no_more_than_it_says(tmp_path):
    path = tmp_path / "files.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(2**20))
    data = path.read_bytes()
    size = (2**20).to_bytes(4, "little")
    path.write_bytes(data.replace(size, (100).to_bytes(4, "little")))
    with pytest.raises(BadExample, match="zip/bomb.png: Bad CRC-32"):
        open_files(str(path), everything).read("bomb.png")


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_an_archive_lacks_is_no_other_file(tmp_path, kind):
    path = pack_bytes({"a.png": b"x", "c.png": b"y"}, tmp_path / f"set{kind}")
    files = open_files(str(path), everything)
    assert files.missing(["a.png", "b.png", "d.png"]) == ["b.png", "d.png"]
    for name in ("b.png", "d.png"):
        with pytest.raises(KeyError):
            files.read(name)
