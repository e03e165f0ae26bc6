"""Devices to compile for: not here, or the pretended ones of this CPU."""

import os
from importlib.util import find_spec

import jax
from jax.experimental import topologies

from beit_jax.ahead.cards import CARDS, described
from beit_jax.ahead.targets import Place

# libtpu is not to ask a machine with TPUs about itself, nor to keep others from it.
_ALONE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# A v4 runs both cores of a chip as one device, but only its newer kin say so unasked.
_CHIPS = {"v4": {"chip_config_name": "megacore"}}


def devices(place: Place) -> list[jax.Device]:
    """The devices of a place, in the order of their numbers; before JAX has started.

    JAX is kept off the accelerators that this machine may have.

    Raises:
      ValueError: their compiler is not installed, or there is no such shape.
    """
    make = {"tpu": _tpus, "cuda": _cards, "cpu": _cores}[place.target.platform]
    _check_compiler(place)
    jax.config.update("jax_platforms", "cpu")
    # What is compiled here is looked at, and of what comes out of a cache less is told.
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        return make(place)
    except (RuntimeError, NotImplementedError) as error:
        told = str(error).split("\n")[0]
        raise ValueError(f"--on={place} cannot be had: {told}") from error


def _check_compiler(place: Place) -> None:
    """Raises ValueError where there is none for the place's devices."""
    platform, version = place.target.platform, jax.__version__
    library = os.path.exists(os.environ.get("TPU_LIBRARY_PATH", ""))
    if platform == "tpu" and not library and not _installed("libtpu"):
        raise ValueError(
            f"--on={place} needs the TPU's compiler, which is not here: pip install "
            f"'jax[tpu]=={version}', or have TPU_LIBRARY_PATH name a libtpu.so"
        )
    plugins = (f"jax_plugins.xla_cuda{release}" for release in (12, 13))
    if platform == "cuda" and not any(map(_installed, plugins)):
        raise ValueError(
            f"--on={place} needs the cards' compiler, which is not here: pip install "
            f"'jax[cuda12]=={version}'; neither a card nor a driver is needed"
        )


def _cores(place: Place) -> list[jax.Device]:
    (count,) = place.shape
    jax.config.update("jax_num_cpu_devices", count)
    return jax.devices()


def _tpus(place: Place) -> list[jax.Device]:
    for name, value in _ALONE.items():
        os.environ.setdefault(name, value)
    chip = _CHIPS.get(place.name, {})
    found = topologies.get_topology_desc(str(place), platform="tpu", **chip)
    return list(found.devices)


def _cards(place: Place) -> list[jax.Device]:
    (count,) = place.shape
    hosts = -(-count // place.target.host)
    found = topologies.get_topology_desc(
        platform="cuda",
        topology=f"1x{hosts}x{count // hosts}",  # slices, hosts, cards
        target_config=described(CARDS[place.name]),
    )
    return list(found.devices)


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # nor is the package that it would be in
        return False
