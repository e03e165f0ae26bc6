"""The BEiT family: which network a state dict is of."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from beit_jax.checkpoints.foreign import (
    beit_names,
    beit_task,
    processors,
    relatives,
    rules,
    segment_config,
    segment_names,
    timm_config,
)
from beit_jax.checkpoints.foreign.beit_names import (
    ENCODER,
    IGNORABLE,
    OWN_TABLE,
    SECOND,
    SEGMENT,
    SHARED_TABLE,
    Names,
    in_layer_0,
)
from beit_jax.checkpoints.foreign.beit_write import DIALECTS as DIALECTS
from beit_jax.checkpoints.foreign.beit_write import foreign as foreign
from beit_jax.checkpoints.foreign.files import Found
from beit_jax.checkpoints.foreign.rules import Array, Hints, Undecided, Understood, pair
from beit_jax.models import positions
from beit_jax.models.presets import released_layer_scale

# transformers' model_type: of BEiT, and of plain ViTs.
KINDS = (("beit",), ("vit", "vit_mae"))
ABOVE = ("decode_head.", "decoder.")  # how names of blocks begin that are no encoder's
HF_EPS = 1e-12  # of transformers, where config.json says nothing; the official is 1e-6


def recognise(state: Mapping[str, Array]) -> str:
    """ "official" for the names that timm has too, "hf", or "" for no BEiT."""
    names = beit_names.of_state(state)
    if names is None or names.plain or relatives.looks_like(state):
        return ""
    return "hf" if names.hf else "official"


def understand(found: Found, dialect: str, hints: Hints) -> Understood:
    """See checkpoints/foreign/families.py. Plain ViTs are understood here, too.

    Raises:
      ValueError: the network cannot be told from the arrays' shapes and the texts, or
        is none of ours.
    """
    names, notes = beit_names.of_state(found.state), []
    there = beit_names.present(names, found.state)
    _check_groups(found, there)
    second = any(name.startswith(SECOND) for name in found.state)
    if second and not any(part.group.startswith(SECOND) for part in there.values()):
        notes.append(f"BEiT v2's second prediction, {SECOND}*, is left behind")
    shapes = _shapes(found, names, there)
    timm = timm_config.of_texts(found.texts) if dialect == "official" else {}
    texts = found.texts if dialect == "hf" or timm else {}
    config = texts.get("config.json", {}) if dialect == "hf" else {}
    try:
        told = _told(shapes, config, timm, KINDS[names.plain])
        heads = _heads(shapes, told.heads, hints.heads, notes)
        model = _model(found, shapes, heads, hints.image_size, told, notes)
        size = pair(model["image_size"])
        seen = processors.of_texts(texts, found.path.name, size, hints.pixels)
    except ValueError as error:
        raise type(error)(f"{found.path}: {error}") from error
    model["pixels"] = seen.pixels
    grid = [side // model["patch_size"] for side in size]
    data = {
        "augment": {"interpolation": seen.interpolation},
        "eval_frame": seen.frame,
    }
    task = beit_task.task(shapes, notes, found.state, model["depth"])
    ignorable = IGNORABLE
    if head := segment_names.head_of(found.state):
        task = segment_config.task(head, shapes, config, model["depth"], notes)
        notes += segment_config.reduced(texts.get(processors.FILE) or {})
        ignorable += ("beit.layernorm.*",)
    sections = {"epochs": 0.0, "task": task, "model": model, "data": data}
    if sections["task"]["name"] == "pretrain":
        hidden = max(1, int(0.4 * math.prod(grid)))
        sections["data"]["mask"] = {"name": "blockwise", "max_patches": hidden}
    width = shapes.get("params/mask_token", (0,))[-1]  # of MAE's decoder
    decoder = config.get("decoder_num_attention_heads") or max(1, width // 32)
    parts = [part for part in names.parts(heads, decoder) if part.ours in there]
    parts += [part for part in there.values() if part.group == SEGMENT]
    classes = sections["task"].get("classes", 0)
    class_names, more = timm_config.class_names(timm, classes)
    card = {"class_names": class_names or _class_names(config, classes)}
    notes = (*notes, *seen.notes, *more)
    return Understood(names.rows(parts), sections, card, ignorable, notes)


def _shapes(found: Found, names: Names, there: Mapping) -> dict[str, tuple[int, ...]]:
    """Our path -> the shape of theirs, in layer 0."""
    shapes = {}
    for ours, part in there.items():
        name = in_layer_0(names.of(part))
        if name not in found.state:
            belongs = f"which belongs to {part.group or 'every BEiT'}"
            raise ValueError(f"{found.path} lacks {name}, {belongs}")
        shapes[ours] = found.state[name].shape
    return shapes


class Told(NamedTuple):
    """What a config beside the weights tells of a network; None: nothing."""

    heads: int = 0
    image_size: Any = None
    norm_eps: float | None = None
    layer_scale: float | None = None


def _told(
    shapes: Mapping[str, tuple[int, ...]],
    config: Mapping[str, Any],
    timm: Mapping[str, Any],
    kinds: tuple[str, ...],
) -> Told:
    """Of transformers' `config` or timm's, and of tables, which have a bias a head.

    Raises:
      ValueError: it is the config of another network.
    """
    for key, known in (("model_type", kinds), ("hidden_act", ("gelu",))):
        if config.get(key, known[0]) not in known:
            raise ValueError(f"config.json has {key}={config[key]!r}, no BEiT")
    for key in ("num_attention_heads", "image_size", "layer_norm_eps"):
        _check_number(key, config.get(key))
    heads = config.get("num_attention_heads") or 0
    size, eps, scale = config.get("image_size"), config.get("layer_norm_eps"), None
    if timm:
        timm_config.check(timm)
        heads = timm_config.heads(timm, shapes[f"{ENCODER}/cls_token"][-1])
        size, eps = timm_config.image_size(timm), timm_config.NORM_EPS
        scale = timm.get("model_args", {}).get("init_values")
    for table in (SHARED_TABLE, OWN_TABLE):
        if table in shapes:
            heads = shapes[table][-1]
    return Told(heads, size, eps, scale)


def _check_number(key: str, value: Any) -> None:
    """Raises ValueError for what is no number, of a size none for each side."""
    sides = value if isinstance(value, list) and key == "image_size" else [value, value]
    numbers = all(type(side) in (int, float) and side >= 0 for side in sides)
    if value is not None and not (numbers and len(sides) == 2):
        raise ValueError(f"config.json has {key}={value!r}, which is no number")


def _check_groups(found: Found, there: dict) -> None:
    """Takes out, or refuses, what one network cannot have together."""
    groups = {part.group for part in there.values()}
    if {"shared", "per_block"} <= groups:
        raise ValueError(
            f"{found.path} has a shared table of relative positions and one in each "
            "block, which no BEiT has"
        )
    if {"head", "fc_norm", "norm"} <= groups:  # the head follows fc_norm
        for ours in [ours for ours, part in there.items() if part.group == "norm"]:
            del there[ours]


def _heads(shapes: Mapping, told: int, asked: Any, notes: list[str]) -> int:
    if asked and told and asked != told:
        raise Undecided(f"--heads={asked}, but it tells of {told}")
    if asked or told:
        return asked or told
    dim = shapes[f"{ENCODER}/cls_token"][-1]
    heads = max(1, dim // 64)
    notes.append(f"heads={heads}, of 64 features each as in all of BEiT: --heads")
    return heads


def _model(
    found: Found,
    shapes: Mapping[str, tuple[int, ...]],
    heads: int,
    asked: Any,
    told: Told,
    notes: list[str],
) -> dict[str, Any]:
    """The section `model`, without its pixels."""
    dim = shapes[f"{ENCODER}/cls_token"][-1]
    if dim % heads:
        raise ValueError(f"{dim} features do not make {heads} heads")
    patch = shapes[f"{ENCODER}/patch_embed/proj/kernel"][-1]
    inside = (name for name in found.state if not name.startswith(ABOVE))
    depth = rules.depth(inside, r"\b(?:blocks|layers?)\.(\d+)\.")
    tables = {SHARED_TABLE: "shared", OWN_TABLE: "per_block"}
    table = next((path for path in tables if path in shapes), "")
    scaled = f"{ENCODER}/blocks/gamma_1" in shapes
    embeddings = shapes.get(f"{ENCODER}/pos_embed")
    counts = (shapes[table][0] if table else 0, embeddings[1] if embeddings else 0)
    eps = 1e-6 if told.norm_eps is None else told.norm_eps
    if told.norm_eps is None and beit_names.of_state(found.state).hf:
        eps = HF_EPS
        notes.append(f"norm_eps={eps}, transformers' default, for no config.json tells")
    # Its value matters to blocks that are made anew only.
    scale = (told.layer_scale or released_layer_scale(depth)) if scaled else 0.0
    return {
        "image_size": _image_size(asked, told.image_size, patch, counts, notes),
        "patch_size": patch,
        "dim": dim,
        "depth": depth,
        "heads": heads,
        "mlp_ratio": shapes[f"{ENCODER}/blocks/mlp/fc1/kernel"][0] / dim,
        "abs_pos_embed": "learned" if embeddings else "none",
        "rel_pos_bias": tables.get(table, "none"),
        "qkv_bias": f"{ENCODER}/blocks/attn/q_bias" in shapes,
        "layer_scale": scale,
        "norm_eps": eps,
    }


def _image_size(
    asked: Any,
    told: Any,
    patch: int,
    counts: tuple[int, int],
    notes: list[str],
) -> int | tuple[int, int]:
    """What the rows of the position tables are for.

    That is what config.json says, or else a square, or else what the user does.

    Args:
      counts: rows of relative and of absolute positions; 0 where there are none.
    """
    offsets, embeddings = counts

    def fits(size: tuple[int, int]) -> bool:
        grid = (size[0] // patch, size[1] // patch)
        rows = (positions.offset_rows(grid), positions.embedding_rows(grid))
        return all(have in (0, want) for have, want in zip(counts, rows, strict=True))

    if told:
        if fits(pair(told)):
            return told if isinstance(told, int) else tuple(told)
        raise ValueError(
            f"config.json says images of {told} px, and the tables of positions have "
            f"{offsets or embeddings} rows, which are of others"
        )
    if not any(counts):
        if asked:
            return asked
        raise Undecided(
            "it has no positions at all. Are they rotary, as in EVA-02 and DINOv3, it "
            "is no BEiT; is it one without positions, say so by --image_size"
        )
    rows = math.isqrt(offsets - 3) // 2 + 1 if offsets else math.isqrt(embeddings)
    if fits((rows * patch, rows * patch)):
        return rows * patch
    if not asked or not fits(pair(asked)):
        raise Undecided(
            f"{offsets or embeddings} rows of positions are of no square "
            f"of {patch}-pixel patches; name their images' size by --image_size "
            "HEIGHT,WIDTH"
        )
    return asked


def _class_names(config: Mapping[str, Any], classes: int) -> list[str]:
    """Of id2label, unless it only counts."""
    labels = config.get("id2label") or {}
    names = [labels.get(str(i), "") for i in range(classes)]
    counted = all(name == f"LABEL_{i}" for i, name in enumerate(names))
    return [] if counted or not all(names) else names
