"""What the loop may expect of any task in the table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.tasks import TASKS
from tests.tasks import runs


@pytest.fixture(scope="module", params=TASKS)
def started(request):
    task, params, ctx, _ = runs.start(runs.config(request.param))
    step = jax.jit(task.eval_step)

    def measure(*batches, ctx=ctx) -> dict[str, float]:
        return task.summarize([step(params, batch, ctx) for batch in batches])

    return task, params, ctx, measure


def assert_same(got: dict, wanted: dict):
    assert got.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_allclose(
            got[name], wanted[name], rtol=2e-5, atol=1e-6, err_msg=name
        )


def test_the_loss_is_the_ratio_that_it_reports(started):
    task, params, ctx, _ = started
    batch = runs.batch(task)
    compute = jax.jit(jax.value_and_grad(task.train_loss, has_aux=True))
    (loss, aux), grads = compute(params, batch, ctx)
    total, weight = aux.metrics["loss"]
    np.testing.assert_allclose(loss, total / weight, rtol=1e-5)
    assert jax.tree.structure(aux.model_state) == jax.tree.structure(ctx.model_state)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.abs(grad).max() > 0, f"no gradient: {jax.tree_util.keystr(path)}"


def test_padding_changes_nothing(started):
    task, _, _, measure = started
    whole, noise = runs.batch(task, 4), runs.batch(task, 6, seed=1)
    padded = {k: np.concatenate([whole[k], noise[k][4:]]) for k in whole}
    padded["weight"] = np.array([1, 1, 1, 1, 0, 0], np.float32)
    assert_same(measure(padded), measure(whole))


def test_an_evaluation_does_not_depend_on_the_batch_size(started):
    task, _, _, measure = started
    whole = runs.batch(task, 6)
    parts = [{k: v[i : i + 4] for k, v in whole.items()} for i in (0, 4)]
    assert_same(measure(*parts), measure(whole))


def test_an_evaluation_draws_nothing(started):
    task, _, ctx, measure = started
    batch, other = runs.batch(task), ctx._replace(rng=jax.random.key(7))
    assert measure(batch) == measure(batch, ctx=other)


def test_the_headline_is_measured(started):
    task, _, _, measure = started
    metrics = measure(runs.batch(task))
    assert set(task.headline) <= metrics.keys()
    assert all(isinstance(value, float) for value in metrics.values())
    assert np.isfinite([*metrics.values()]).all()
    told = task.warnings(metrics)
    assert all(isinstance(sentence, str) for sentence in told)


def test_pictures_are_rows_of_uint8_pixels(started):
    task, params, ctx, _ = started
    pictures = jax.jit(task.pictures)(params, runs.batch(task), ctx)
    for picture in pictures.values():
        assert picture.dtype == jnp.uint8
        assert picture.ndim == 4 and picture.shape[0] == 4 and picture.shape[3] == 3
