"""Counted operations against closed forms, and the table of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from beit_jax.heads.tokens import TokenHead
from beit_jax.models.features import Features, Stage
from beit_jax.models.presets import VARIANTS
from beit_jax.models.vit import Encoder
from beit_jax.run.summary import count_flops, flops_by_precision, parameter_table


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


def test_a_matrix_product_counts_two_operations_an_entry():
    assert count_flops(jnp.matmul, shape(3, 5), shape(5, 7)) == 2 * 3 * 5 * 7


def test_a_batched_product_counts_every_matrix():
    flops = count_flops(jnp.matmul, shape(4, 3, 5), shape(4, 5, 7))
    assert flops == 2 * 4 * 3 * 5 * 7


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_counts_its_kernel_at_every_output(groups):
    def convolve(image, kernel):
        return jax.lax.conv_general_dilated(
            image,
            kernel,
            window_strides=(2, 2),
            padding="SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    flops = count_flops(convolve, shape(2, 8, 8, 4), shape(3, 3, 4 // groups, 6))
    assert flops == 2 * (2 * 4 * 4 * 6) * (3 * 3 * 4 // groups)


def test_elementwise_work_does_not_count():
    assert count_flops(lambda x: jnp.exp(x) + x * x, shape(9, 9)) == 0


def test_a_scan_counts_every_turn():
    def loop(x, matrices):
        return jax.lax.scan(lambda x, m: (x @ m, None), x, matrices)

    assert count_flops(loop, shape(3, 5), shape(6, 5, 5)) == 6 * 2 * 3 * 5 * 5


def test_a_condition_counts_as_its_dearer_branch():
    def either(yes, x):
        return jax.lax.cond(yes, lambda: x @ x @ x, lambda: x @ x)

    yes = jax.ShapeDtypeStruct((), bool)
    assert count_flops(either, yes, shape(4, 4)) == 2 * 2 * 4**3


def test_compiled_and_rematerialised_functions_count_inside():
    def product(x):
        return x @ x

    assert count_flops(jax.jit(product), shape(4, 4)) == 2 * 4**3
    assert count_flops(jax.checkpoint(product), shape(4, 4)) == 2 * 4**3


def test_operations_are_told_by_their_precision():
    def products(x, y):
        exact = jnp.matmul(x, y, precision="highest")
        short = jnp.matmul(
            x.astype(jnp.bfloat16), y.astype(jnp.bfloat16), preferred_element_type=float
        )
        return jax.lax.scan(lambda z, _: (z @ y, None), exact + short, None, length=3)

    flops = flops_by_precision(jax.make_jaxpr(products)(shape(4, 4), shape(4, 4)).jaxpr)
    once = 2 * 4**3
    assert flops == {"highest": once, "bfloat16": once, "float32": 3 * once}


def test_a_gradient_costs_two_more_products():
    def loss(x, w):
        return jnp.sum(jnp.square(x @ w))

    flops = count_flops(jax.grad(loss, argnums=(0, 1)), shape(3, 5), shape(5, 7))
    assert flops == 3 * 2 * 3 * 5 * 7


@pytest.mark.parametrize("variant, gflop", [("base", 36.07), ("large", 124.4)])
def test_a_published_encoder_costs_what_its_sizes_say(variant, gflop):
    """224 px, 16-px patches, 75 masked ones predicted among 8,192 tokens."""
    encoder = Encoder(grid=(14, 14), mask_token=True, **VARIANTS[variant])
    head = TokenHead(8192)
    image, mask = shape(1, 224, 224, 3), jax.ShapeDtypeStruct((1, 196), bool)
    patches = Features(Stage(shape(1, 75, encoder.dim), None, (14, 14)))

    def initialise(init, *args):
        return jax.eval_shape(init, jax.random.key(0), *args)

    flops = count_flops(
        lambda *args: encoder.apply(*args, train=True),
        initialise(encoder.init, image),
        image,
        mask,
    )
    flops += count_flops(head.apply, initialise(head.init, patches), patches)

    tokens, dim, depth = 197, encoder.dim, encoder.depth
    linear = 2 * tokens * dim * (3 * dim + dim + 2 * 4 * dim)
    attention = 2 * 2 * tokens**2 * dim
    embedding = 2 * 196 * dim * (16 * 16 * 3)
    wanted = depth * (linear + attention) + embedding + 2 * 75 * dim * 8192
    assert flops == wanted
    np.testing.assert_allclose(flops / 1e9, gflop, rtol=0.01)


def test_the_table_adds_up():
    params = {
        "encoder": {
            "cls_token": jnp.zeros((1, 1, 8)),
            "blocks": {"mlp": {"kernel": jnp.zeros((2, 8, 32))}},
            "norm": {"scale": jnp.zeros(8), "bias": jnp.zeros(8)},
        },
        "lm_head": {"bias": jnp.zeros(480)},
    }
    text = parameter_table(params, {"a step": 2_500_000_000})
    rows = [
        [part.strip() for part in line.split("│")[1:4]] for line in text.split("\n")
    ]
    rows = {row[0]: row[1:] for row in rows if len(row) == 3}
    assert rows["encoder/cls_token"] == ["8", "0.8 %"]
    assert rows["encoder/blocks/mlp"] == ["512", "50.4 %"]
    assert rows["encoder/norm"] == ["16", "1.6 %"]
    assert rows["lm_head/bias"] == ["480", "47.2 %"]
    assert rows["all"] == ["1,016", ""]
    assert rows["a step"] == ["2.500 GFLOP", ""]
