"""Trains quantizers on 1, 2 and 8 pretended devices; prints how far they differ.

python -m tests.models.quantizer_mesh: one JSON object on the last line, settings and
devices -> numbers. Apart from the tests, because the number of devices is settled when
JAX starts.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np

from beit_jax import sharding
from beit_jax.models.quantizer import Quantizer

STEPS = 4
EMA = {"decay": 0.8, "kmeans_steps": 3, "kmeans_batches": 2, "restart_below": 0.5}
MODELS = {
    "ema": Quantizer(vocab=24, dim=4, **EMA),
    "ema of unit codes": Quantizer(vocab=24, dim=4, l2_norm=True, **EMA),
    "gradient": Quantizer(vocab=24, dim=4, learning="gradient"),
}


def batch(step: int) -> dict[str, np.ndarray]:
    """Latents (16, 3, 2, 4) around few centres, some of which nobody may learn from."""
    rng = np.random.default_rng(step)
    centres = np.eye(4)[rng.integers(4, size=(16, 3, 2))]
    z = centres + rng.normal(scale=0.3, size=centres.shape)
    return {"z": z.astype(np.float32), "weight": (np.arange(16) != 5).astype("f")}


def trained(model: Quantizer, devices: int):
    """The codebook and its state after STEPS steps, and the ids of each."""
    mesh = sharding.make_mesh({"data": devices}, jax.devices()[:devices])

    @jax.jit
    def update(variables, z, weight, key):
        state = {k: v for k, v in variables.items() if k != "params"}

        def loss(params):
            out, after = model.apply(
                state | {"params": params},
                z,
                train=True,
                weight=weight,
                mutable=list(state),
                rngs={"codebook": key},
            )
            return out.loss @ weight, (out.ids, after)

        params = variables.get("params", {})
        grads, (ids, after) = jax.grad(loss, has_aux=True)(params)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
        return dict(after) | {"params": params}, ids

    with jax.set_mesh(mesh):
        variables, ids = model.init(jax.random.key(0), jnp.zeros((1, 1, 1, 4))), []
        variables = jax.device_put(variables, sharding.replicated(mesh))
        for step in range(STEPS):
            given = sharding.put_batch(batch(step), mesh)
            assert len(given["z"].sharding.device_set) == devices
            variables, chosen = update(variables, **given, key=jax.random.key(step))
            ids.append(np.asarray(chosen))
    return jax.device_get(variables), np.array(ids)


def main() -> None:
    found = {}
    for name, model in MODELS.items():
        want, ids = trained(model, 1)
        for devices in (2, 8):
            got, others = trained(model, devices)
            apart = jax.tree.map(lambda a, b: np.max(np.abs(1.0 * a - b)), want, got)
            found[f"{name}, {devices} devices"] = {
                "state": float(max(jax.tree.leaves(apart))),
                "ids": int(np.sum(ids != others)),
                "codes": len(np.unique(ids[-1])),
            }
    print(json.dumps(found))


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_disable_most_optimizations", True)  # compiles faster
    main()
