"""Batch norm by PyTorch's conventions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.models.batch_norm import BatchNorm

X = np.random.default_rng(0).standard_normal((2, 3, 4, 5), np.float32) + 1


def trained(x, **settings):
    norm = BatchNorm(**settings)
    start = norm.init(jax.random.key(0), x)
    y, after = norm.apply(start, x, train=True, mutable=["batch_stats"])
    return norm, start, y, after["batch_stats"]


def test_a_batch_is_normalised_by_its_own_moments():
    _, _, y, _ = trained(X)
    np.testing.assert_allclose(np.mean(y, axis=(0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(np.var(y, axis=(0, 1, 2)), 1, rtol=1e-4)


def test_what_is_remembered_is_a_tenth_of_the_unbiased_variance():
    *_, stats = trained(X)
    mean, var = X.mean((0, 1, 2)), X.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * var, rtol=1e-5)


def test_an_evaluation_sees_what_is_remembered():
    norm, start, _, stats = trained(X)
    y = norm.apply(start | {"batch_stats": stats}, X)
    want = (X - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)


def test_one_value_of_each_feature_is_no_batch():
    norm = BatchNorm(name="bn")
    x = jnp.ones((1, 1, 1, 5))
    start = norm.init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="train on batches of 2 images or more"):
        norm.apply(start, x, train=True, mutable=["batch_stats"])
