"""Runs our network of a case."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from beit_jax.checkpoints.names import flatten, nest
from beit_jax.heads.linear import LinearHead
from beit_jax.heads.network import Network, start
from beit_jax.heads.tokens import TokenHead
from beit_jax.models.dvae import DVAE
from beit_jax.models.vit import Encoder
from tests.parity import names, random_weights
from tests.parity.cases import Case, Input, make_input

GRADIENT = "gradient of "
EMBEDDINGS = ("patch_embed/", "cls_token", "mask_token", "pos_embed")


def run(case: Case, recorded: bool = False) -> dict[str, np.ndarray]:
    """Loss, outputs, and the loss's gradients by `names.theirs` of the parameters."""
    loss = _dvae_loss if case.kind.startswith("dvae") else _beit_loss
    loss = functools.partial(loss, case, make_input(case))
    with jax.default_matmul_precision("highest"):
        gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))
        (value, outputs), grads = gradients(nest(parameters(case)))
    grads = {path: np.asarray(x) for path, x in flatten(grads).items()}
    grads = names.theirs(case, grads, recorded)
    return {"loss": value, **outputs, **{GRADIENT + k: x for k, x in grads.items()}}


def parameters(case: Case) -> dict[str, np.ndarray]:
    """Path -> the values that both sides compute with."""
    flat = random_weights.draw(sizes(case), case.seed)
    for path in flat:
        if path.startswith(tuple(f"encoder/{part}" for part in EMBEDDINGS)):
            flat[path] *= case.faint
    return flat


def sizes(case: Case) -> dict[str, tuple[int, ...]]:
    """Path -> shape of every parameter."""
    init = _dvae_init if case.kind.startswith("dvae") else _beit_init
    image = jax.ShapeDtypeStruct((1, *case.image, 3), jnp.float32)
    tree = jax.eval_shape(functools.partial(init, case), jax.random.key(0), image)
    return {path: leaf.shape for path, leaf in flatten(nn.unbox(tree)).items()}


def encoder(case: Case) -> Encoder:
    """BEiT without what sits on it."""
    side = case.model["patch_size"]
    return Encoder(
        grid=(case.image[0] // side, case.image[1] // side),
        mask_token=case.kind == "mim",
        final_norm=case.kind != "mean",
        **case.model,
    )


def _head(case: Case) -> nn.Module:
    if case.kind == "mim":
        return TokenHead(case.outputs)
    return LinearHead(case.outputs, case.kind)


def _beit_init(case: Case, key, image):
    return start(Network(encoder(case), _head(case)), key, image)["params"]


def _beit_loss(case: Case, given: Input, params):
    """Mean cross-entropy over all masked patches, or over the images."""
    mask = given.mask if case.kind == "mim" else None
    features = encoder(case).apply({"params": params["encoder"]}, given.image, mask)
    logits = _head(case).apply({"params": params}, features)
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, given.target)
    return jnp.mean(nats, where=mask), {"logits": logits}


def dvae(case: Case) -> DVAE:
    return DVAE(vocab=case.outputs, **case.model)


def _dvae_init(case: Case, key, image):
    method = "logits" if case.kind == "dvae_encoder" else None
    return dvae(case).init(key, image, method=method)["params"]


def _dvae_loss(case: Case, given: Input, params):
    """The mean square of what comes last: a number that all parameters change."""
    model = dvae(case).bind({"params": params})
    logits = model.logits(given.image)
    outputs = {"logits": logits, "tokens": jnp.argmax(logits, -1)}
    if case.kind == "dvae_encoder":
        return jnp.mean(jnp.square(logits)), outputs
    stats = model.stats(jax.nn.softmax(logits))
    outputs |= {"stats": stats, "stats of ids": model.stats(given.target)}
    return jnp.mean(jnp.square(stats)), outputs
