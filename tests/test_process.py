"""What a command sets for its process."""

import jax
import pytest

from beit_jax import process


@pytest.fixture
def cache(monkeypatch):
    """Sets JAX's folder for compiled programs; that of all tests comes back."""
    names = ("dir", "max_size")
    names = [f"jax_compilation_cache_{name}" for name in names]
    names.append("jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    yield lambda folder: jax.config.update("jax_compilation_cache_dir", folder)
    for name, value in before.items():
        jax.config.update(name, value)


def test_what_is_compiled_is_kept_for_machines_of_this_kind(
    cache, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache(None)
    process.keep_compiled()
    (folder,) = (tmp_path / "beit_jax").iterdir()
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert jax.config.jax_compilation_cache_max_size == process._CACHE_BYTES
    assert folder.name == f"xla-{process._machine()}"


def test_another_folder_of_the_users_stays(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache(str(tmp_path / "mine"))
    process.keep_compiled()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
    assert not (tmp_path / "beit_jax").exists()


def test_where_no_folder_can_be_made_nothing_is_kept(cache, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cache(None)
    process.keep_compiled()
    assert jax.config.jax_compilation_cache_dir is None
