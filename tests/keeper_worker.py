"""One of two hosts: saves a sharded state twice, damages the newer step, goes on.

python -m tests.keeper_worker PORT HOST FOLDER: one JSON object on the last line, what
was restored and what is in the folder then. Apart from the tests: hosts are processes.
"""

import json
import os
import pathlib
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from beit_jax import sharding
from beit_jax.checkpoints.keeper import Checkpointer
from beit_jax.run.state import TrainState
from tests import tiny

POSITION = {"examples": 20}


def state(step: int, mesh) -> TrainState:
    """Weights of which each host has a half."""
    noise = np.random.default_rng(step).normal(size=(64, 64)).astype("f")
    halves = NamedSharding(mesh, PartitionSpec("fsdp"))
    weights = jax.make_array_from_callback(noise.shape, halves, lambda at: noise[at])
    everywhere = sharding.replicated(mesh)
    count = jax.make_array_from_callback((), everywhere, lambda _: np.int32(step))
    return TrainState(count, {"w": weights}, {}, {}, None)


def main(folder: pathlib.Path) -> dict:
    mesh = sharding.make_mesh({"data": 1, "fsdp": 4, "tensor": 1})
    config = tiny.config("classify", checkpoint__keep=2)
    with jax.set_mesh(mesh):
        with Checkpointer(folder, config, {}) as run:
            for step in (1, 2):
                run.save(step, state(step, mesh), POSITION | {"step": step})
        multihost_utils.sync_global_devices("both are saved")
        if jax.process_index() == 0:
            files = (folder / "checkpoints" / "2").rglob("*/d/*")
            path = max(files, key=lambda path: path.stat().st_size)
            path.write_bytes(bytes(path.stat().st_size))
        with Checkpointer(folder, config, {}) as run:
            have, notes = run.restore(state(0, mesh), POSITION)
            run.save(2, state(2, mesh), POSITION | {"step": 2})
    same = jax.tree.map(
        lambda *leaves: np.array_equal(*(x.addressable_data(0) for x in leaves)),
        have,
        state(1, mesh),
    )
    names = sorted(os.listdir(folder / "checkpoints"))
    return {"same": jax.tree.all(same), "notes": notes, "names": names}


if __name__ == "__main__":
    port, host, folder = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(f"localhost:{port}", 2, int(host))
    print(json.dumps(main(pathlib.Path(folder))))
