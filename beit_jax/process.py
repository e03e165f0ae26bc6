"""What a command sets for its process before JAX computes anything."""

import hashlib
import pathlib
import platform

import jax

from beit_jax import cache

_CACHE_BYTES = 4 * 2**30  # what was not used for longest goes first


def keep_compiled() -> None:
    """Lets the next start find what this one compiles, below `cache.folder`.

    A setting of JAX's for it, or JAX_ENABLE_COMPILATION_CACHE=0, stays as it is; where
    no folder can be made, nothing is kept.
    """
    if (
        jax.config.jax_compilation_cache_dir
        or not jax.config.jax_enable_compilation_cache
    ):
        return
    folder = cache.folder() / f"xla-{_machine()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lockfile").touch()  # of JAX's, and whether we may write
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", _CACHE_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _machine() -> str:
    """Tells machines apart whose programs would not run on each other: a home may be
    shared by several."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Feat"))), "")
    told = f"{platform.machine()} {platform.processor()} {flags}"
    return hashlib.sha256(told.encode()).hexdigest()[:8]
