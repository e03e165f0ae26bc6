"""Lean gradients beside those that autodiff makes of the plain formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.models import lean
from beit_jax.models.products import product


def layer_norm(x, scale, bias, _):
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)
    return x * scale + bias


def attend(logits, value, dtype):
    weights = jax.nn.softmax(logits)
    return product(lean.ATTEND, weights, value, dtype), weights


PLAIN = {
    "gelu": lambda x, _: 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5)),
    "scale": lambda x, gamma, _: x * gamma,
    "layer_norm": layer_norm,
    "attend": attend,
}
LEAN = {
    "gelu": lean.gelu,
    "scale": lean.scale,
    "layer_norm": lambda *args: lean.layer_norm(*args[:3], 1e-6, args[3]),
    "attend": lean.attend,
}
SHAPES = {
    "gelu": [(4, 5, 16)],
    "scale": [(4, 5, 16), (16,)],
    "layer_norm": [(4, 5, 16), (16,), (16,)],
    "attend": [(4, 2, 5, 5), (4, 5, 2, 8)],
}
every = pytest.mark.parametrize("name", SHAPES)


def arrays(name):
    rng = np.random.default_rng(0)
    return [rng.normal(0, 2, shape).astype(np.float32) for shape in SHAPES[name]]


def of(functions, name, dtype=jnp.float32):
    """That function, of its arrays alone."""
    return lambda *args: functions[name](*args, dtype)


def stacked(args):
    return [jnp.stack([x, -0.5 * x]) for x in args]


def scan(f):
    def run(*args):
        return jax.lax.scan(lambda _, row: (0, f(*row)), 0, stacked(args))[1]

    return run


WAYS = {
    "jit": lambda f: f,
    "remat": jax.checkpoint,
    "vmap": lambda f: lambda *args: jax.vmap(f)(*stacked(args)),
    "scan": scan,
}


def gradients(f):
    """A function of f's arrays: gradients of a weighed sum of all that f gives."""

    def weighed(*args):
        given = jax.tree.leaves(f(*args))
        return sum(jnp.vdot(x, jnp.cos(jnp.arange(x.size))) for x in given)

    return lambda *args: jax.grad(weighed, tuple(range(len(args))))(*args)


def assert_near(got, wanted, share):
    """No difference is larger than that share of its array's largest entry."""
    for one, want in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, want, rtol=0, atol=share * np.abs(want).max())


@every
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_values_are_the_plain_formula_s_to_the_last_bit(name, dtype):
    got, wanted = (
        jax.jit(of(functions, name, dtype))(*arrays(name))
        for functions in (LEAN, PLAIN)
    )
    jax.tree.map(np.testing.assert_array_equal, got, wanted)


@every
@pytest.mark.parametrize("way", WAYS)
def test_float32_gradients_are_those_of_autodiff(name, way):
    got, wanted = (
        jax.jit(gradients(WAYS[way](of(functions, name))))(*arrays(name))
        for functions in (LEAN, PLAIN)
    )
    assert_near(got, wanted, 1e-6)


@every
def test_second_derivatives_are_those_of_autodiff(name):
    got, wanted = (
        jax.jit(gradients(gradients(of(functions, name))))(*arrays(name))
        for functions in (LEAN, PLAIN)
    )
    assert_near(got, wanted, 1e-5)


@every
def test_one_array_of_dtype_is_kept(name):
    """Besides smaller ones; attention keeps both operands of its product."""
    backward = jax.vjp(of(LEAN, name, jnp.bfloat16), *arrays(name))[1]
    large = [
        x.dtype for x in jax.tree.leaves(backward) if np.size(x) >= arrays(name)[0].size
    ]
    assert large == [jnp.bfloat16] * (2 if name == "attend" else 1)


def block(functions, dtype):
    """(x (B, T, D), parameters) -> (B, T, D), a block of two heads."""
    f = {name: of(functions, name, dtype) for name in functions}

    def run(x, p):
        shape = x.shape
        y = f["layer_norm"](x, *p["norm1"]).reshape(-1, shape[-1])
        qkv = product("ni,io->no", y, p["qkv"], dtype)
        query, key, value = jnp.split(qkv.reshape(*shape[:2], 3, 2, -1), 3, axis=2)
        logits = product("bqak,bsak->baqs", query[:, :, 0], key[:, :, 0], dtype)
        y = f["attend"](logits / 4, value[:, :, 0])[0].reshape(-1, shape[-1])
        y = product("ni,io->no", y, p["proj"], dtype)
        x = x + f["scale"](y.reshape(shape), p["gamma_1"])
        y = f["layer_norm"](x, *p["norm2"]).reshape(-1, shape[-1])
        y = f["gelu"](product("ni,io->no", y, p["fc1"], dtype))
        y = product("ni,io->no", y, p["fc2"], dtype)
        return x + f["scale"](y.reshape(shape), p["gamma_2"])

    return run


def made(seed, dim=32):
    """(x, parameters) of a block."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(0, shape[0] ** -0.5, shape).astype(np.float32)

    params = {"qkv": normal(dim, 3 * dim), "proj": normal(dim, dim)}
    params |= {"fc1": normal(dim, 4 * dim), "fc2": normal(4 * dim, dim)}
    params |= {f"gamma_{i}": 1 + normal(dim) for i in (1, 2)}
    params |= {f"norm{i}": (1 + normal(dim), normal(dim)) for i in (1, 2)}
    return rng.normal(0, 1, (64, 17, dim)).astype(np.float32), params


def test_bfloat16_gradients_err_no_more_than_those_of_autodiff():
    """Roundings of products are what errs: seen are ratios up to 1.08, mean 1.01."""
    exact, plain, got = (
        jax.jit(gradients(block(functions, dtype)))
        for functions, dtype in (
            (PLAIN, jnp.float32),
            (PLAIN, jnp.bfloat16),
            (LEAN, jnp.bfloat16),
        )
    )

    def error(f, args):
        """Of all gradients, each a share of its norm."""
        pairs = zip(
            jax.tree.leaves(f(*args)), jax.tree.leaves(exact(*args)), strict=True
        )
        shares = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs]
        return np.linalg.norm(shares)

    ratios = [error(got, made(seed)) / error(plain, made(seed)) for seed in range(8)]
    assert np.mean(ratios) < 1.05
