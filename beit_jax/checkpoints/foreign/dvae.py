"""DALL-E's dVAE: OpenAI's files, and its encoder as transformers' FlavaImageCodebook.

OpenAI's files hold the encoder and the decoder apart; `files.read` of their folder puts
"encoder." and "decoder." before the names. An encoder alone makes tokens, all that a
target is for, and paints none.
"""

import pathlib
import re
from collections.abc import Mapping
from itertools import pairwise

from beit_jax.checkpoints.foreign import rules, tokenizers
from beit_jax.checkpoints.foreign.files import Found
from beit_jax.checkpoints.foreign.rules import Foreign, Hints, Row, Understood
from beit_jax.checkpoints.steps import Restored
from beit_jax.models.dvae import DVAE

DIALECTS = ("official", "hf")
PAINTER = "decoder.blocks.input.w"
# What the first kernel is called: in a folder of two files or in one; inside FLAVA.
FIRST = {
    "official": ("encoder.blocks.input.w", "blocks.input.w", PAINTER),
    "hf": ("image_codebook.blocks.input.weight", "blocks.input.weight"),
}


def rows(
    n_hid: int = 256, n_init: int = 128, blocks_per_group: int = 2, patch_size: int = 8
) -> list[Row]:
    """The table of a `models.dvae.DVAE` of these sizes, in OpenAI's names."""
    widths = [n_hid << group for group in range(patch_size.bit_length())]
    table = []
    for net, dims in (
        ("encoder", [n_hid, *widths]),
        ("decoder", [n_init, *reversed(widths)]),
    ):
        table += _conv(f"{net}.blocks.input", f"{net}/input")
        for group, (dim_in, dim) in enumerate(pairwise(dims), 1):
            for block in range(1, blocks_per_group + 1):
                table += _block(
                    f"{net}.blocks.group_{group}.block_{block}",
                    f"{net}/group_{group}/block_{block}",
                    widens=block == 1 and dim_in != dim,
                )
        table += _conv(f"{net}.blocks.output.conv", f"{net}/output")
    return table


def _block(theirs: str, ours: str, widens: bool) -> list[Row]:
    table = _conv(f"{theirs}.id_path", f"{ours}/id_path") if widens else []
    for i in range(1, 5):
        table += _conv(f"{theirs}.res_path.conv_{i}", f"{ours}/conv_{i}")
    return table


def _conv(theirs: str, ours: str) -> list[Row]:
    weight = (f"{theirs}.w", f"params/{ours}/kernel", rules.ANY_CONV)
    return [weight, (f"{theirs}.b", f"params/{ours}/bias", rules.SAME)]


def encoder_rows(table: list[Row], dialect: str, stem: str = "") -> list[Row]:
    """Those of the encoder alone, with `stem` in the place of "encoder."."""
    encoder = [row for row in table if row[0].startswith("encoder.")]
    to_dialect = _to_hf if dialect == "hf" else str
    return [(stem + to_dialect(name[8:]), ours, op) for name, ours, op in encoder]


def _to_hf(name: str) -> str:
    name = name.replace("res_path", "res_path.path")
    name = re.sub(r"(group_\d+)", r"\1.group", name)
    return re.sub(r"\.b$", ".bias", re.sub(r"\.w$", ".weight", name))


def recognise(state: Mapping[str, rules.Array]) -> str:
    """ "official", "hf" for FLAVA's codebook, or "" for neither."""
    there = (d for d, names in FIRST.items() if any(name in state for name in names))
    return next(there, "")


def understand(found: Found, dialect: str, hints: Hints) -> Understood:
    """See checkpoints/foreign/families.py.

    Raises:
      ValueError: there is no encoder, or something is missing in it.
    """
    state, shape = found.state, tokenizers.shape
    first = next(name for name in FIRST[dialect] if name in state)
    stem, _, leaf = first.partition("blocks.input.")
    n_hid, channels = shape(found, first, 4)[:2]
    if channels != 3:
        raise ValueError(
            f"{found.path} has a decoder only, which makes no tokens: name a folder "
            "that has encoder.pkl too"
        )
    pattern = re.escape(stem) + r"blocks\.group_(\d+)\.(?:group\.)?block_(\d+)\."
    matches = [match for name in state if (match := re.match(pattern, name))]
    sizes = {
        "n_hid": n_hid,
        "blocks_per_group": len({match[2] for match in matches}),
        "patch_size": 1 << max(0, len({match[1] for match in matches}) - 1),
    }
    others, notes = (), []
    if stem == "encoder." and PAINTER in state:
        sizes["n_init"] = shape(found, PAINTER, 4)[0]
        table = rows(**sizes)
    else:
        table = encoder_rows(rows(**sizes), dialect, stem)
        notes.append("it has no decoder (decoder.pkl): it makes tokens, paints none")
    if stem == "image_codebook.":
        others = {re.sub(r"\..*", ".*", name) for name in state} - {f"{stem}*"}
        notes.append("of FLAVA the image codebook is taken, and nothing else")
    model = {
        "name": "dvae",
        "vocab": shape(found, f"{stem}blocks.output.conv.{leaf}", 4)[0],
        **sizes,
        "image_size": 14 * sizes["patch_size"],
        "pixels": "dalle",
    }
    more = {"ignorable": tuple(others), "notes": notes}
    return tokenizers.understood(table, model, hints, **more)


def foreign(saved: Restored, dialect: str, target: pathlib.Path) -> Foreign:
    """See checkpoints/foreign/families.py.

    Raises:
      ValueError: transformers has no such network.
    """
    names = ("n_hid", "n_init", "blocks_per_group", "patch_size", "vocab")
    sizes = tokenizers.settings(saved, DVAE, names)
    vocab, notes = sizes.pop("vocab"), tokenizers.pixel_notes(saved, "dalle")
    table = rows(**sizes)
    if dialect == "official":
        whole = "decoder" in saved.params
        made = table if whole else encoder_rows(table, dialect, "encoder.")
        return Foreign(made, notes=notes)
    if sizes["patch_size"] != 8:
        raise ValueError(
            f"FlavaImageCodebook's patches are of 8 px, not of {sizes['patch_size']}"
        )
    config = {
        "architectures": ["FlavaImageCodebook"],
        "model_type": "flava_image_codebook",
        "hidden_size": sizes["n_hid"],
        "num_blocks_per_group": sizes["blocks_per_group"],
        "vocab_size": vocab,
    }
    return Foreign(
        encoder_rows(table, dialect),
        ignorable=("params/decoder/*",),
        texts={"config.json": config},
        notes=(*notes, "FlavaImageCodebook has no decoder: it makes tokens only"),
    )
