"""The encoder that a config describes, and its joint initialisation with a head."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from beit_jax import lookup
from beit_jax.models import adapt as adaptation
from beit_jax.models import positions
from beit_jax.models.pixels import PIXEL_SPACES, PixelSpace
from beit_jax.models.positions import Grid
from beit_jax.models.vit import VARIANTS, Encoder, released_layer_scale
from beit_jax.tasks.base import Array, Tree


def _released(depth: int, pretraining: bool) -> dict[str, Any]:
    """The network of the released weights, made by the official scripts' defaults."""
    return {
        "abs_pos_embed": "none",
        "rel_pos_bias": "shared" if pretraining else "per_block",
        "layer_scale": released_layer_scale(depth),
    }


def _paper_plain(depth: int, pretraining: bool) -> dict[str, Any]:
    """The plain ViT of BEiT's ImageNet-1k numbers (arXiv:2106.08254)."""
    return {"abs_pos_embed": "learned", "rel_pos_bias": "none", "layer_scale": 0.0}


# Two networks go by the name of BEiT-B.
PRESETS = {"released": _released, "paper_plain": _paper_plain}
# What stands for an image: [CLS], the mean of the patches, or one after the other.
FEATURES = ("cls", "mean", "concat")
OUTPUTS = ("features", "attention")  # what an encoder alone tells of images


def build(
    config: ConfigDict, **given: Any
) -> tuple[Encoder, tuple[int, int], PixelSpace]:
    """The encoder of `config.model`, (height, width) of its input, its pixel space.

    Besides the settings of `Encoder`, `config.model` has `image_size` (the side of a
    square, or height and width), `pixels`, and perhaps `variant` (a row of VARIANTS)
    and `preset` (of PRESETS). These two give defaults: what else is set wins.

    Args:
      given: what the task decides; `mask_token=True` means that it pre-trains.

    Raises:
      ValueError: settings that do not fit, or an image that patches do not fill.
    """
    settings = _with_defaults(config.model, given.get("mask_token", False))
    space = pixel_space(settings)
    size, grid = _size_and_grid(settings)
    settings.pop("image_size")
    dtype = jnp.dtype(config.dtype)
    encoder = lookup.call(
        Encoder, settings, "config.model", grid=grid, dtype=dtype, **given
    )
    return encoder, size, space


def _with_defaults(model: Mapping[str, Any], pretraining: bool) -> dict[str, Any]:
    """The settings of a model, those of its variant and its preset filled in."""
    settings = {"init_as": "pretrain" if pretraining else "finetune", **model}
    if variant := settings.pop("variant", ""):
        sizes = lookup.lookup(VARIANTS, variant, "config.model.variant")
        settings = sizes | settings
    if preset := settings.pop("preset", ""):
        make = lookup.lookup(PRESETS, preset, "config.model.preset")
        settings = make(settings.get("depth", 12), pretraining) | settings
    return settings


def _size_and_grid(model: Mapping[str, Any]) -> tuple[tuple[int, int], Grid]:
    """A model's (height, width) in pixels, and in patches.

    Raises:
      ValueError: sizes that are none, or do not fit each other.
    """
    size, patch = model.get("image_size"), model.get("patch_size", 16)
    sides = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    for name, value, numbers in (
        ("image_size", size, sides),
        ("patch_size", patch, (patch,)),
    ):
        if not all(isinstance(n, int) and n > 0 for n in numbers):
            raise ValueError(f"config.model.{name}={value!r} must be pixels, >= 1")
    if len(sides) != 2:
        raise ValueError(
            f"config.model.image_size={size!r} must be a side, or height and width"
        )
    if any(side % patch for side in sides):
        fits = [side // patch * patch or patch for side in sides]
        fits = fits[0] if isinstance(size, int) else tuple(fits)
        raise ValueError(
            f"config.model.image_size={size} must be a multiple of patch_size={patch}, "
            f"{fits} for example"
        )
    return sides, (sides[0] // patch, sides[1] // patch)


def pixel_space(settings: dict[str, Any]) -> PixelSpace:
    """Takes `pixels` out of a model's settings and looks it up."""
    return lookup.lookup(
        PIXEL_SPACES, settings.pop("pixels", "half"), "config.model.pixels"
    )


def init(rng: Array, encoder: Encoder, head: nn.Module, image: Array) -> Tree:
    """Boxed parameters {"encoder": ..., and the head's own names}."""
    encoder_rng, head_rng = jax.random.split(rng)
    variables = encoder.init(encoder_rng, image)
    tokens = encoder.apply(variables, image).tokens
    return {
        "encoder": variables["params"],
        **head.init(head_rng, tokens)["params"],
    }


def block_features(encoder: Encoder, params: Tree, image: Array, kind: str) -> Array:
    """What each block makes of whole images; the official linear probe uses "concat".

    Args:
      params: the encoder's own.
      image: (B, H, W, 3) float, already normalised.
      kind: one of FEATURES.

    Returns:
      (L, B, F) float32 from the blocks' raw outputs, F = 2D for "concat", D else.
    """
    if kind not in FEATURES:
        raise ValueError(f"features {kind!r} are none of {FEATURES}")
    every = encoder.clone(taps=tuple(range(encoder.depth)))
    hidden = every.apply({"params": params}, image).hidden
    cls, mean = hidden[:, :, 0], hidden[:, :, 1:].mean(axis=2)
    return {"cls": cls, "mean": mean, "concat": jnp.concatenate([cls, mean], -1)}[kind]


def outputs(
    encoder: Encoder,
    params: Tree,
    image: Array,
    what: str,
    patch: Grid | None = None,
) -> dict[str, Array]:
    """One of OUTPUTS of whole images; arguments as of `block_features`.

    "features": cls and the mean of the patches, (B, L, D) float32, of every block.
    "attention": see `attention_maps`, which `patch` is for.
    """
    if what == "attention":
        return attention_maps(encoder, params, image, patch)
    both = block_features(encoder, params, image, "concat").swapaxes(0, 1)
    cls, mean = jnp.split(both, 2, axis=-1)
    return {"cls": cls, "mean": mean}


def attention_maps(
    encoder: Encoder, params: Tree, image: Array, patch: Grid | None = None
) -> dict[str, Array]:
    """How much [CLS], and perhaps one patch, looks at each patch: "cls", "patch".

    Args:
      patch: its (row, column).

    Returns:
      (B, L, A, h, w) float32 each, by block and head; what [CLS] is given is left out.

    Raises:
      ValueError: a patch outside of the grid.
    """
    queries = {"cls": 0}
    if patch is not None:
        (row, column), (height, width) = patch, encoder.grid
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(
                f"no patch in row {row}, column {column}: there are {height}x{width}, "
                "counted from 0"
            )
        queries["patch"] = 1 + row * width + column
    attending = encoder.clone(attends=tuple(queries.values()))
    weights = attending.apply({"params": params}, image).attention[..., 1:]
    maps = weights.reshape(*weights.shape[:-1], *encoder.grid).swapaxes(0, 1)
    return {name: maps[:, :, :, number] for number, name in enumerate(queries)}


def adapt(params: Tree, model: Mapping[str, Any], encoder: Encoder) -> Tree:
    """Another run's parameters with position tables as `encoder` has them.

    Tables of another grid are resized, fixed positions become a table to be learned, a
    shared table of relative ones is copied to every block that is to have its own.

    Args:
      model: the section `model` of the other run's config.

    Raises:
      ValueError: positions that cannot become what `encoder` has.
    """
    if "encoder" not in params:
        return params
    given, (_, old) = params["encoder"], _size_and_grid(model)
    if model.get("abs_pos_embed") == "sincos":
        if encoder.abs_pos_embed == "learned":
            given = given | {"pos_embed": positions.sincos(old, encoder.dim)}
        elif encoder.abs_pos_embed == "sincos" and old != tuple(encoder.grid):
            raise ValueError(
                f"weights were trained with sin-cos positions of {old[0]}x{old[1]} "
                f"patches, which {encoder.grid[0]}x{encoder.grid[1]} would be other "
                "ones; set model.abs_pos_embed='learned', which starts from those"
            )
    given = adaptation.resize_positions(given, old, encoder.grid)
    own = "rel_pos_bias" in given.get("blocks", {}).get("attn", {})
    if encoder.rel_pos_bias == "shared" and own:
        given = adaptation.per_block_to_shared(given)
    if encoder.rel_pos_bias == "per_block" and "rel_pos_bias" in given:
        given = adaptation.shared_to_per_block(given, encoder.depth)
    return params | {"encoder": given}
