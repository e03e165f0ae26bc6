"""How the B-size networks start, against the official code's own statistics."""

import json
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax import config as config_lib
from beit_jax import tasks
from beit_jax.checkpoints.foreign import beit_names
from beit_jax.checkpoints.names import flatten
from tests.agreement import assert_agrees
from tests.shared import shared_path

TASKS = {
    "B_pretrain_v1": {
        "name": "pretrain",
        "target": {
            "name": "tokens",
            "checkpoint": "untrained",
            "untrained": {"vocab": 8192},
        },
    },
    "B_finetune_v1": {"name": "classify", "classes": 1000},
}


def start(model: str) -> dict[str, np.ndarray]:
    """Our parameters as the task starts them, by name."""
    config = config_lib.new(
        task=TASKS[model],
        model={"variant": "base", "preset": "released", "image_size": 224},
        data={"mask": {"max_patches": 75}},
    )
    task = tasks.build(config)
    batch = {"image": jnp.zeros((1, 224, 224, 3), jnp.uint8)}
    init = jax.jit(lambda rng: nn.unbox(task.init(rng, batch)["params"]))
    return flatten(jax.device_get(init(jax.random.key(0))))


OURS = {part.official: part.ours for part in beit_names.parts(heads=12)}


def ours(name: str, params: dict[str, np.ndarray]) -> np.ndarray:
    """Our array of an official parameter."""
    block = re.match(r"blocks\.(\d+)\.", name)
    path = OURS[re.sub(r"^blocks\.\d+", "blocks.{i}", name)].removeprefix("params/")
    return params[path][int(block[1])] if block else params[path]


def distances(leaf: np.ndarray, want: dict) -> tuple[float, float]:
    """Of deviation and mean, in sigmas that two samples of a normal differ by.

    Of the 86 million normals of the fine-tuning model seven are recorded as -2, a
    hundred sigma: PyTorch's float32 uniforms are rounded to the very end now and then,
    and `trunc_normal_` cuts the infinity they give at -2. We draw none of these.
    """
    variance, lowest = want["std"] ** 2, want["min"]
    if -lowest > 20 * want["std"]:
        variance -= lowest**2 / leaf.size
    else:
        assert 0.7 < leaf.min() / lowest < 1.4  # tells a cut normal from a whole one
    assert 0.7 < leaf.max() / want["max"] < 1.4
    std, mean = np.std(leaf, dtype=np.float64), np.mean(leaf, dtype=np.float64)
    sigma = np.sqrt(2 * variance / leaf.size)
    return (
        abs(std / np.sqrt(variance) - 1) * np.sqrt(leaf.size),
        abs(mean - want["mean"]) / sigma,
    )


@pytest.mark.parametrize("model", TASKS)
def test_every_parameter_starts_with_the_official_statistics(model):
    path = shared_path("oracles/init_stats/init_stats.json")
    recorded = json.loads(path.read_text())[model]
    params = start(model)
    assert sum(leaf.size for leaf in params.values()) == recorded["n_params"]
    found = []
    for name, want in recorded["per_parameter"].items():
        leaf = ours(name, params)
        assert leaf.size == np.prod(want["shape"]), name
        if want["std"] == 0:
            np.testing.assert_allclose(leaf, want["mean"], rtol=1e-6, err_msg=name)
        else:
            found.append(distances(leaf, want))
    what = f"initial deviations and means of {len(found)} tensors, in sigmas"
    assert_agrees(f"oracle init_stats, {model}", what, np.max(found), 0, atol=5)
