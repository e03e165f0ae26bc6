"""What a command sets for its process."""

import jax
import pytest

from beit_jax import process


@pytest.fixture
def kept():
    """Sets JAX's folder for compiled programs; that of all tests comes back."""
    names = ("dir", "max_size")
    names = [f"jax_compilation_cache_{name}" for name in names]
    names.append("jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    yield lambda folder: jax.config.update("jax_compilation_cache_dir", folder)
    for name, value in before.items():
        jax.config.update(name, value)


def test_what_is_compiled_is_kept_for_machines_of_this_kind(
    kept, tmp_path, monkeypatch
):
    monkeypatch.setenv("BEIT_JAX_CACHE", str(tmp_path))
    kept(None)
    process.keep_compiled()
    (folder,) = tmp_path.iterdir()
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert jax.config.jax_compilation_cache_max_size == process._CACHE_BYTES
    assert folder.name == f"xla-{process._machine()}"


def test_another_folder_of_the_users_stays(kept, tmp_path, monkeypatch):
    monkeypatch.setenv("BEIT_JAX_CACHE", str(tmp_path))
    kept(str(tmp_path / "mine"))
    process.keep_compiled()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
    assert not list(tmp_path.iterdir())


def test_where_no_folder_can_be_made_nothing_is_kept(kept, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BEIT_JAX_CACHE", str(tmp_path / "file"))
    kept(None)
    process.keep_compiled()
    assert jax.config.jax_compilation_cache_dir is None
