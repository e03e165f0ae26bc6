"""What all tests share: one compilation cache, and a way to disturb a run."""

import importlib.metadata
import os
import shutil
import tempfile

import pytest

# Many runs of the tests compile the same step: the test processes, and those that they
# start, share what is compiled. The first process to come here makes the folder.
_CACHE = {
    "JAX_COMPILATION_CACHE_DIR": "",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
_OWN = "JAX_COMPILATION_CACHE_DIR" not in os.environ
if _OWN:
    os.environ |= _CACHE
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="beit_jax_tests_")

# They compile more than they compute: without most optimisations and with XLA's older
# emitters that takes a third of the time. Another jaxlib may lack the flags, and would
# end the process. `XLA_FLAGS= JAX_DISABLE_MOST_OPTIMIZATIONS=0` tests what users get.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if importlib.metadata.version("jaxlib").startswith("0.10."):
    _FLAGS = "use_fusion_emitters=false", "parallel_codegen_split_count=1"
    os.environ.setdefault("XLA_FLAGS", " ".join(f"--xla_cpu_{f}" for f in _FLAGS))


def pytest_unconfigure(config):
    if _OWN:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.fixture(scope="module")
def optimised():
    """For comparisons with the official code: compiled as it is for users."""
    import jax

    jax.config.update("jax_disable_most_optimizations", False)
    yield
    usual = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] != "0"
    jax.config.update("jax_disable_most_optimizations", usual)


@pytest.fixture
def before_step(monkeypatch):
    """`before_step(step, act)`: `act(batch)` runs just before the batch is used.

    What it returns, if anything, takes the batch's place. Batches are the real ones.
    `before_step(None, None)` takes the disturbance away.
    """
    from beit_jax.data import pipeline

    real = pipeline.Stream.batches

    def plan(at, act):
        def batches(self, first_step=0, shard=(0, 1)):
            for step, batch in enumerate(real(self, first_step, shard), first_step + 1):
                yield (act(batch) or batch) if step == at else batch

        monkeypatch.setattr(pipeline.Stream, "batches", batches)

    return plan
