"""The networks that are compared with torch peers; nothing here needs torch."""

from typing import Any, NamedTuple

import numpy as np

from beit_jax.models.presets import VARIANTS


class Case(NamedTuple):
    """A network and its input; all of it can be written as JSON.

    Attributes:
      peer: the package that has it too, as it is imported.
      kind: "mim" (BEiT with its prediction layer), a BEiT classifier on the "mean"
        patch or on "cls", "dvae", or of that the "dvae_encoder" alone.
      model: settings of our encoder without its grid, or of our DVAE.
      image: (H, W) pixels.
      outputs: visual tokens or classes.
      seed: of the weights; the input's is the next one.
      faint: factor on what enters BEiT's first block: with a small variance the
        epsilon of a LayerNorm shows.
      images: B.
    """

    peer: str
    kind: str
    model: dict[str, Any]
    image: tuple[int, int]
    outputs: int
    seed: int
    faint: float = 1.0
    images: int = 3


TINY = {"dim": 32, "depth": 2, "heads": 4, "patch_size": 8, "layer_scale": 0.5}
SHARED = TINY | {"rel_pos_bias": "shared"}
PER_BLOCK = TINY | {"rel_pos_bias": "per_block"}
PLAIN = TINY | {"rel_pos_bias": "none", "abs_pos_embed": "learned", "layer_scale": 0.0}
WIDE = {"dim": 48, "depth": 3, "heads": 3, "patch_size": 16, "layer_scale": 0.5}
DVAE = {"n_hid": 16, "n_init": 12, "blocks_per_group": 2, "patch_size": 8}

CASES = {
    "mim_shared": Case("transformers", "mim", SHARED, (32, 32), 17, 1),
    "mim_per_block": Case("transformers", "mim", PER_BLOCK, (40, 40), 17, 3),
    "mim_plain": Case("transformers", "mim", PLAIN, (32, 32), 17, 5),
    "mim_default_eps": Case(
        "transformers", "mim", SHARED | {"norm_eps": 1e-12}, (32, 32), 17, 7, 0.01
    ),
    "mean_per_block": Case("transformers", "mean", PER_BLOCK, (32, 32), 7, 9),
    "cls_plain": Case("transformers", "cls", PLAIN, (32, 32), 7, 11),
    "flava_codebook": Case("transformers", "dvae_encoder", DVAE, (24, 40), 19, 13),
    "square": Case("timm", "mean", PER_BLOCK, (32, 32), 7, 15),
    "rectangle": Case(
        "timm", "mean", WIDE | {"rel_pos_bias": "per_block"}, (48, 80), 7, 17
    ),
    "shared": Case("timm", "mean", SHARED, (40, 24), 7, 19),
    "plain": Case("timm", "mean", PLAIN, (32, 32), 7, 21),
    "cls": Case(
        "timm",
        "cls",
        PER_BLOCK | {"mlp_ratio": 3.0, "qkv_bias": False},
        (32, 32),
        7,
        23,
    ),
    # Of these seeds no parameter's gradient is zero, as behind a dead ReLU.
    "dvae": Case("dall_e", "dvae", DVAE, (24, 40), 19, 55),
    "dvae_one_block": Case(
        "dall_e", "dvae", DVAE | {"n_init": 8, "blocks_per_group": 1}, (16, 16), 23, 47
    ),
}
# Compared live only: what is recorded of the others says the same of our side.
NOT_RECORDED = ("square", "plain", "flava_codebook", "dvae")

BASE = VARIANTS["base"] | {"patch_size": 16}
LARGE = VARIANTS["large"] | {"patch_size": 16}
FULL_SIZE = {
    "beit_base_mim": Case("transformers", "mim", BASE, (224, 224), 8192, 29, images=1),
    "beit_base_224": Case(
        "timm",
        "mean",
        BASE | {"rel_pos_bias": "per_block"},
        (224, 224),
        1000,
        31,
        images=1,
    ),
    "beit_large_512": Case(
        "timm",
        "mean",
        LARGE | {"rel_pos_bias": "per_block"},
        (512, 512),
        1000,
        33,
        images=1,
    ),
    "dall_e": Case("dall_e", "dvae", {"patch_size": 8}, (64, 64), 8192, 35, images=1),
}


class Input(NamedTuple):
    """Images, masks of unequal counts, and what the network should say.

    BEiT's images are normal, a dVAE's in its pixel space. `target` holds tokens of all
    patches, but for a classifier labels.
    """

    image: np.ndarray  # (B, H, W, 3) float32
    mask: np.ndarray  # (B, N) bool
    target: np.ndarray  # (B, N) or (B,) int32; for a dVAE (B, h, w)


def make_input(case: Case) -> Input:
    """What the network of a case is shown."""
    rng = np.random.RandomState(case.seed + 1)
    side = case.model["patch_size"]
    grid = (case.image[0] // side, case.image[1] // side)
    shape = (case.images, *case.image, 3)
    if case.kind.startswith("dvae"):
        image, target = rng.uniform(0.1, 0.9, shape), (case.images, *grid)
    else:
        image, target = rng.standard_normal(shape), (case.images, grid[0] * grid[1])
    mask = rng.random_sample((case.images, grid[0] * grid[1])) < 0.4
    if case.kind in ("mean", "cls"):
        target = case.images
    target = rng.randint(case.outputs, size=target).astype(np.int32)
    return Input(image.astype(np.float32), mask, target)
