"""The mesh, and where the parameters of the published sizes go on it.

`python -m tests.test_sharding` writes tests/golden/sharding.json anew.
"""

import json
import pathlib

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from beit_jax import config as config_lib
from beit_jax import sharding, tasks
from beit_jax.checkpoints.names import flatten
from beit_jax.models.presets import VARIANTS
from beit_jax.run import state

GOLDEN = pathlib.Path(__file__).with_name("golden") / "sharding.json"


def one_device():
    return sharding.make_mesh({}, jax.devices()[:1])


def test_one_size_may_be_the_rest():
    devices = jax.devices()[:1]
    mesh = sharding.make_mesh({"data": -1, "fsdp": 1}, devices)
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1, "tensor": 1}
    assert mesh.axis_names == sharding.AXES


@pytest.mark.parametrize(
    "shape, message",
    [
        ({"dta": 1}, r"no mesh axis 'dta'; axes are .*did you mean 'data'\?"),
        ({"data": 2}, "does not cover 1 devices: .* must be 1"),
        ({"data": -1, "fsdp": -1}, "one size may be -1"),
        ({"data": -1, "fsdp": 2}, "does not cover 1 devices"),
        ({"data": 0}, "does not cover 1 devices"),
        ({"data": -2}, "does not cover 1 devices"),
        ({"data": -1, "fsdp": 0}, "does not cover 1 devices"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        sharding.make_mesh(shape, jax.devices()[:1])


def test_a_batch_must_split_over_devices_and_accumulation():
    mesh = AbstractMesh((2, 2, 3), sharding.AXES)
    sharding.check_batch_size(24, mesh, parts=3)
    with pytest.raises(ValueError) as error:
        sharding.check_batch_size(30, mesh, parts=3)
    assert str(error.value) == (
        "data.batch_size=30 must be a multiple of 12 (data x fsdp devices x "
        "optim.accumulate=3), 24 for example"
    )
    with pytest.raises(ValueError, match="multiple of 4 .*, 4 for example"):
        sharding.check_batch_size(0, mesh)


def test_a_batch_keeps_its_values_on_the_mesh():
    batch = {"label": np.arange(4), "image": np.zeros((4, 2, 2, 3), np.uint8)}
    batch["index"] = np.arange(4)
    placed = sharding.put_batch(batch, one_device())
    assert placed["label"].sharding.spec == PartitionSpec(("data", "fsdp"))
    np.testing.assert_array_equal(placed["label"], batch["label"])
    assert placed["image"].dtype == np.uint8
    forms = {name: (value.shape, value.dtype) for name, value in batch.items()}
    spec = sharding.batch_spec(forms, one_device())
    assert placed.keys() == spec.keys() == {"label", "image"}  # the index stays


def test_constrain_does_nothing_without_a_mesh():
    x = np.ones((2, 3))
    np.testing.assert_array_equal(sharding.constrain(x, "batch", None), x)


def boxed_params(variant: str):
    """Parameters of BEiT pre-training as boxed shapes; nothing is computed."""
    target = {"name": "tokens", "checkpoint": "untrained", "untrained": {"vocab": 8192}}
    config = config_lib.new(
        task={"name": "pretrain", "target": target},
        model={"image_size": 224, "rel_pos_bias": "shared"} | VARIANTS[variant],
        data={"mask": {"max_patches": 75}},
    )
    task = tasks.build(config)
    example = {
        name: jax.ShapeDtypeStruct((1, *spec.shape), spec.dtype)
        for name, spec in task.train_spec.items()
    }
    return state.abstract_variables(task, example)["params"]


def layout(variant: str) -> dict[str, list]:
    """Path -> [shape, mesh axes that each dimension is split over]."""
    boxed = boxed_params(variant)
    specs = flatten(sharding.shardings_of(boxed, one_device()))
    return {
        path: [list(leaf.shape), list(specs[path].spec)]
        for path, leaf in flatten(nn.unbox(boxed)).items()
    }


def as_text(layouts: dict[str, dict]) -> str:
    """JSON with a parameter a line, for a readable diff."""
    parts = []
    for variant, parameters in layouts.items():
        lines = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in parameters.items()]
        parts.append(f" {json.dumps(variant)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(parts) + "\n}\n"


RECORDED = ("base", "large")


@pytest.mark.parametrize("variant", RECORDED)
def test_parameters_are_laid_out_as_recorded(variant):
    recorded = json.loads(GOLDEN.read_text())[variant]
    now = layout(variant)
    changed = [
        f"{path}: recorded {recorded.get(path)}, now {now.get(path)}"
        for path in sorted(recorded.keys() | now.keys())
        if recorded.get(path) != now.get(path)
    ]
    assert not changed, "\n".join(
        [*changed, "If this is meant: python -m tests.test_sharding, and commit it."]
    )


@pytest.mark.parametrize("variant", RECORDED)
@pytest.mark.parametrize("sizes", [(1, 8, 1), (2, 2, 4), (1, 64, 2)])
def test_the_published_sizes_divide_over_common_meshes(variant, sizes):
    mesh = AbstractMesh(sizes, sharding.AXES)
    placed = jax.tree.leaves(sharding.shardings_of(boxed_params(variant), mesh))
    assert any(not where.is_fully_replicated for where in placed)


def test_a_parameter_that_the_mesh_does_not_divide_is_named():
    mesh = AbstractMesh((1, 1, 8), sharding.AXES)  # Base has 12 heads
    with pytest.raises(ValueError, match="encoder/blocks/attn/.* cannot be split as"):
        sharding.shardings_of(boxed_params("base"), mesh)


def test_every_large_parameter_is_split():
    for path, (shape, spec) in layout("base").items():
        if np.prod(shape) > 100_000:
            assert any(spec), f"{path} {shape} would be whole on every device"


if __name__ == "__main__":
    GOLDEN.write_text(as_text({variant: layout(variant) for variant in RECORDED}))
