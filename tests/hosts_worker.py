"""One of two hosts: says whose row is where in a batch that both make together.

python -m tests.hosts_worker PORT HOST: one JSON object on the last line: under "orders"
an order of the devices in the mesh -> labels of the global batch, and what `row_order`
tells; under "union" all numbers of which each host knows some.
Apart from the tests, because hosts are processes.
"""

import json
import sys

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from beit_jax import hosts, sharding

ORDERS = ([0, 1, 2, 3], [2, 3, 0, 1], [0, 2, 1, 3], [3, 0, 2, 1])
ROWS = 8


def whole_batch(order: list[int], host: int) -> tuple[list[int], list[int]]:
    devices = np.array(jax.devices())[order].reshape(4, 1, 1)
    mesh = Mesh(devices, sharding.AXES, axis_types=(AxisType.Auto,) * 3)
    mine = np.split(np.arange(ROWS, dtype=np.int32), 2)[host]
    placed = sharding.put_batch({"label": mine}, mesh)["label"]
    copy = jax.jit(lambda x: x + 0, out_shardings=sharding.replicated(mesh))
    return copy(placed).tolist(), sharding.row_order(ROWS, mesh).tolist()


if __name__ == "__main__":
    port, host = sys.argv[1], int(sys.argv[2])
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(f"localhost:{port}", 2, host)
    orders = {str(order): whole_batch(order, host) for order in ORDERS}
    known = hosts.union([[5, 0], [7, 5, 9]][host])
    print(json.dumps({"orders": orders, "union": sorted(known)}))
