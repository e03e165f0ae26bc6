"""The device mesh, the logical-axis rules, and where state and batches live on it."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from beit_jax.lookup import nearest

Tree = Any

AXES = ("data", "fsdp", "tensor")

HOST_ONLY = ("index",)  # of a batch: no device ever sees it

# Logical axis of a parameter or activation -> mesh axes it is split over.
RULES = (
    ("batch", ("data", "fsdp")),
    ("embed", "fsdp"),
    ("heads", "tensor"),
    ("mlp", "tensor"),
    ("vocab", "tensor"),
    ("layers", None),
)


def partitioned(init: nn.initializers.Initializer, *axes: str | None):
    """Names the logical axis of every dimension of the parameter that `init` makes."""
    return nn.with_logical_partitioning(init, axes)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Pins an activation to the mesh by logical axes; does nothing without a mesh."""
    return nn.with_logical_constraint(x, axes, rules=RULES)


def make_mesh(shape: Mapping[str, int], devices=None) -> Mesh:
    """A mesh over all devices with axes `("data", "fsdp", "tensor")`.

    Args:
      shape: devices along each axis; one of them may be -1, meaning "the rest".

    Raises:
      ValueError: an unknown axis, or sizes whose product is not the device count.
        (`jax.make_mesh` would leave devices idle without a word.)
    """
    devices = jax.devices() if devices is None else devices
    for axis in shape:
        if axis not in AXES:
            raise ValueError(
                f"no mesh axis {axis!r}; axes are {AXES}{nearest(axis, AXES)}"
            )
    sizes = {axis: int(shape.get(axis, 1)) for axis in AXES}
    free = [axis for axis in AXES if sizes[axis] == -1]
    fixed = int(np.prod([size for size in sizes.values() if size != -1]))
    if len(free) == 1 and fixed > 0 and len(devices) % fixed == 0:
        sizes[free[0]] = len(devices) // fixed
    if (
        len(free) > 1
        or min(sizes.values()) < 1
        or np.prod([*sizes.values()]) != len(devices)
    ):
        raise ValueError(
            f"mesh {dict(shape)} does not cover {len(devices)} devices: the product "
            f"of its sizes must be {len(devices)} (one size may be -1)"
        )
    return jax.make_mesh(
        tuple(sizes.values()),
        AXES,
        devices=devices,
        axis_types=(AxisType.Auto,) * len(AXES),
    )


def shardings_of(boxed: Tree, mesh: Mesh) -> Tree:
    """`NamedSharding`s for a tree whose leaves carry logical axes (or none).

    Raises:
      ValueError: a dimension that its mesh axes do not divide; names the parameter.
    """
    shardings = nn.logical_to_mesh_sharding(nn.get_partition_spec(boxed), mesh, RULES)

    def check(path, leaf, sharding):
        try:
            sharding.shard_shape(leaf.shape)
        except ValueError as error:
            raise ValueError(
                f"{jax.tree_util.keystr(path, simple=True, separator='/')} of shape "
                f"{leaf.shape} cannot be split as {sharding.spec} over mesh "
                f"{dict(mesh.shape)}; choose sizes that the mesh divides"
            ) from error

    jax.tree_util.tree_map_with_path(check, nn.unbox(boxed), shardings)
    return shardings


def ways() -> int:
    """Parts that the mesh at hand splits a batch into; 1 where there is none."""
    sizes = jax.sharding.get_abstract_mesh().shape
    return sizes.get("data", 1) * sizes.get("fsdp", 1)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def check_batch_size(size: int, mesh: Mesh, parts: int = 1) -> None:
    """Raises ValueError unless `size` examples split over mesh and accumulation."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"] * parts
    if size < 1 or size % ways:
        raise ValueError(
            f"data.batch_size={size} must be a multiple of {ways} (data x fsdp devices "
            f"x optim.accumulate={parts}), {max(size // ways, 1) * ways} for example"
        )


def batch_spec(
    spec: Mapping[str, tuple], mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
    """Name -> (shape, dtype) of a global batch -> what `put_batch` will give.

    Sharded alike, so that a step that was traced for it need not be traced again.
    """
    sharding = batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct(*form, sharding=sharding)
        for name, form in spec.items()
        if name not in HOST_ONLY
    }


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This host's slice of a global batch -> global arrays over data and fsdp.

    What is HOST_ONLY stays behind.

    Every host gives an equal part. JAX raises where a mesh wants it otherwise: data and
    fsdp must span all hosts, tensor must stay within one.
    """
    sharding, hosts = batch_sharding(mesh), jax.process_count()
    return {
        name: jax.make_array_from_process_local_data(
            sharding, value, (len(value) * hosts, *value.shape[1:])
        )
        for name, value in batch.items()
        if name not in HOST_ONLY
    }


def parts(batch: Mapping[str, jax.Array], count: int) -> dict[str, jax.Array]:
    """Arrays (B, ...) -> (count, B / count, ...), to go through one after another.

    Every device keeps its own examples: part i has rows i, i + count, ...
    """
    return {
        name: value.reshape(-1, count, *value.shape[1:]).swapaxes(0, 1)
        for name, value in batch.items()
    }


def row_order(size: int, mesh: Mesh) -> np.ndarray:
    """(size,) which of all hosts' rows each row of a global batch is.

    Hosts are counted by their numbers, each one's rows in their order: so data come.
    A mesh may lay them out otherwise, where its devices are not in the order of hosts.
    """
    host = np.empty(size, int)
    for device, (rows,) in batch_sharding(mesh).devices_indices_map((size,)).items():
        host[rows] = device.process_index
    return np.argsort(np.argsort(host, kind="stable"))
