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
        return runs.metrics(task, *(step(params, batch, ctx) for batch in batches))

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


def test_a_skipped_example_teaches_nothing(started):
    """Neither the weights nor a codebook; whatever its pixels are."""
    task, params, ctx, _ = started
    learn = jax.jit(jax.grad(task.train_loss, has_aux=True))
    results = []
    for seed in (0, 1):
        batch, noise = runs.batch(task), runs.batch(task, seed=seed)
        for name, rows in batch.items():
            rows[1:3] = noise[name][1:3]
        batch["weight"] = np.array([1, 0, 0, 1], np.float32)
        grads, aux = learn(params, batch, ctx)
        results.append((grads, aux.model_state))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *results
    )


def test_a_batch_of_skipped_examples_gives_no_gradient(started):
    task, params, ctx, _ = started
    batch = runs.batch(task) | {"weight": np.zeros(4, np.float32)}
    grads, _ = jax.jit(jax.grad(task.train_loss, has_aux=True))(params, batch, ctx)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_jitter_in_the_step_by_factors_of_one_changes_nothing(started):
    task, params, ctx, _ = started
    plain = runs.batch(task)
    same = plain | {"jitter": np.tile([[0, 1.0], [1, 1.0], [2, 1.0]], (4, 1, 1))}
    dark = plain | {"jitter": np.tile([[0, 0.2]], (4, 1, 1))}
    loss = jax.jit(lambda batch: task.train_loss(params, batch, ctx)[0])
    np.testing.assert_allclose(loss(same), loss(plain), rtol=1e-6)
    assert abs(loss(dark) - loss(plain)) > 1e-4


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
    told = task.warnings(metrics, 1.0)
    assert all(isinstance(sentence, str) for sentence in told.values())


def test_pictures_are_rows_of_uint8_pixels(started):
    task, params, ctx, _ = started
    pictures = jax.jit(task.pictures)(params, runs.batch(task), ctx)
    for name, picture in pictures.items():
        assert picture.dtype == jnp.uint8
        width = task.train_spec["image"].shape[1]
        assert picture.shape[2] == width * len(task.columns[name])
        assert picture.ndim == 4 and picture.shape[0] == 4 and picture.shape[3] == 3
