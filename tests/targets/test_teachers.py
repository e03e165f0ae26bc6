"""Teachers: frozen networks that have one vector for each patch of a grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.checkpoints import frozen
from beit_jax.run.opened import open as opened
from beit_jax.run.whole import whole
from beit_jax.targets.teachers import TEACHERS
from tests import tiny
from tests.run.test_opened import save
from tests.tasks import runs

GRID, PATCH = (4, 4), 8
IMAGE = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
# The smallest settings of every teacher; a new one needs a line here.
SETTINGS = {"encoder": {k: v for k, v in tiny.TEACHER.items() if k != "name"}}


def told(teacher, image=IMAGE):
    weights = teacher.frozen.load()
    return jax.jit(teacher)(weights, jnp.asarray(image))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    return save(folder, whole(runs.config("pretrain")))


@pytest.mark.parametrize("name", TEACHERS)
def test_a_teacher_has_a_vector_for_each_patch(name):
    teacher = TEACHERS[name](GRID, PATCH, **SETTINGS[name])
    out = told(teacher)
    assert out.shape == (2, 16, teacher.width) and out.dtype == jnp.float32
    np.testing.assert_allclose(out, told(teacher, IMAGE.astype(np.float32)), atol=1e-6)


@pytest.mark.parametrize("name", TEACHERS)
def test_a_teacher_passes_no_gradient_to_what_it_sees(name):
    teacher = TEACHERS[name](GRID, PATCH, **SETTINGS[name])
    weights = teacher.frozen.load()
    grad = jax.jit(jax.grad(lambda x: teacher(weights, x).sum()))
    assert not grad(IMAGE.astype(np.float32)).any()


def test_a_run_teaches_what_its_encoder_says(run):
    encoder = opened(run).encoder
    image = encoder.space.to_float(IMAGE)
    module = encoder.module.clone(taps=(0,))
    want = jax.jit(module.apply)({"params": encoder.params}, image)
    last, first = (
        TEACHERS["encoder"](GRID, PATCH, str(run), block=b) for b in (None, 0)
    )
    np.testing.assert_allclose(told(last), want.last.patches, atol=1e-5)
    np.testing.assert_allclose(told(first), want.taps[0].patches, atol=1e-5)
    unit = told(TEACHERS["encoder"](GRID, PATCH, str(run), normalize=True))
    np.testing.assert_allclose(unit.mean(-1), 0, atol=1e-6)
    assert frozen.records({"teacher": last.frozen})["teacher"]["digest"]


def test_a_teacher_of_other_patches_sees_the_image_at_its_own_size(run):
    out = told(
        TEACHERS["encoder"]((2, 2), PATCH, str(run))
    )  # of 8-pixel patches: 16 px
    assert out.shape == (2, 4, tiny.ENCODER["dim"])


def test_what_has_no_encoder_cannot_teach(tmp_path):
    save(tmp_path, whole(runs.config("tokenizer")))
    with pytest.raises(ValueError, match="of task 'tokenizer', which has no encoder"):
        TEACHERS["encoder"](GRID, PATCH, str(tmp_path))
