"""Files in a store: copies of them, and what cannot be reached."""

import pytest

from beit_jax import stores
from beit_jax.stores import Store


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BEIT_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def store(tmp_path):
    return Store(f"memory://{tmp_path.name}/run")


def test_a_copy_serves_until_the_file_in_the_store_is_another(store):
    store.write("weights.npz", b"one")
    first = stores.copied(f"{store.url}/weights.npz")
    again = stores.copied(f"{store.url}/weights.npz")
    store.write("weights.npz", b"two")
    new = stores.copied(f"{store.url}/weights.npz")
    assert first == again != new
    assert (first.name, first.read_bytes(), new.read_bytes()) == (
        "weights.npz",
        b"one",
        b"two",
    )


def test_a_copy_of_a_folder_has_the_files_asked_for(store):
    for name in ("0/a", "0/b/c", "1/a"):
        store.write(name, name.encode())
    asked = {k: v for k, v in store.versions().items() if k.startswith("0/")}
    made = stores.copied(store.url, asked)
    files = [path for path in made.rglob("*") if path.is_file()]
    names = {path.relative_to(made).as_posix(): path.read_text() for path in files}
    assert (made.name, names) == ("run", {"0/a": "0/a", "0/b/c": "0/b/c"})


def test_a_copy_that_fails_leaves_nothing(store, cache):
    store.write("a", b"")
    with pytest.raises(OSError, match="no .*gone"):
        stores.copied(store.url, {"a": "1", "gone": "1"})
    assert list((cache / "copied").iterdir()) == []


@pytest.mark.parametrize("name", ["../a", "b/../../a", "/a"])
def test_a_name_that_leads_out_of_its_folder_is_not_copied(name, store, tmp_path):
    with pytest.raises(ValueError, match="leads out of its folder"):
        store.get([name], tmp_path / "here")
    assert not (tmp_path / "a").exists()


def test_what_is_not_there_is_said(store):
    assert store.versions() == {}
    with pytest.raises(FileNotFoundError) as told:
        store.read("a")
    assert told.value.filename == store.url
    store.remove(["a"])
    with pytest.raises(ValueError, match="there is no file 'memory://"):
        stores.copied(f"{store.url}/a")


def test_names_can_be_matched(store):
    for name in ("x-1.tar", "x-0.tar", "y.tar", "below/x-2.tar"):
        store.write(name, b"")
    assert store.matching("x-*.tar") == ["x-0.tar", "x-1.tar"]


def test_a_store_without_its_library_names_it():
    with pytest.raises(ValueError, match="'nowhere://a/b' cannot be reached"):
        Store("nowhere://a/b")
