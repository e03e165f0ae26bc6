"""What was found of images, as files: tables, arrays, pictures."""

import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from beit_jax.charts import attention
from beit_jax.run.writer import one_picture
from beit_jax.text import UTF8, Table

# What can be asked for -> what is written.
FILES = {
    "labels": ("labels.csv", "labels.jsonl"),
    "tokens": ("tokens.npz",),
    "features": ("features.npz",),
    "attention": ("attention.npz", "attention"),
    "reconstruction": ("reconstruction",),
}
_STEM_BYTES = 200  # of an image's name in a picture's, which may have 255
_PAIR = ("label", "probability")


class Prediction(NamedTuple):
    """What was found of one image."""

    name: str  # the path of its file
    problem: str  # a sentence on why it could not be used; empty if it could
    image: np.ndarray  # (H, W, 3) uint8, as the network saw it
    found: dict[str, np.ndarray]  # see `predict`; {} if there is a problem


def check_new(out: pathlib.Path, what: str) -> None:
    """Raises ValueError when files that `what` is written to are in `out` already."""
    if out.is_file():
        raise ValueError(f"--out={out} is a file; name a folder, it may be a new one")
    for name in FILES[what]:
        if (out / name).exists():
            raise ValueError(
                f"{out / name} exists; name another folder by --out, or replace what "
                "an earlier command wrote by --overwrite"
            )


def clear(out: pathlib.Path, what: str) -> None:
    """Deletes what an earlier command has written for `what`; nothing else."""
    for name in FILES[what]:
        path = out / name
        for file in path.glob(f"{'[0-9]' * 6}_*.png") if path.is_dir() else [path]:
            file.unlink(missing_ok=True)


def write_labels(found: Iterable[Prediction], out: pathlib.Path, top: int) -> None:
    """Each image's `top` likeliest classes, for tables and for programs."""
    with (
        (out / "labels.csv").open("w", newline="", **UTF8) as file,
        (out / "labels.jsonl").open("w", **UTF8) as lines,
    ):
        table = Table(file)
        for number, one in enumerate(found):
            names = one.found["label"][:top].tolist()
            shares = [float(f"{p:.6g}") for p in one.found["probability"][:top]]
            pairs = list(zip(names, shares, strict=True))
            if not number:
                table.write(["image", *_PAIR, *_more_columns(len(pairs))])
            table.write([one.name, *(value for pair in pairs for value in pair)])
            best = [dict(zip(_PAIR, pair, strict=True)) for pair in pairs]
            record = {"image": one.name, "labels": best}
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")


def _more_columns(count: int) -> list[str]:
    return [f"{name}_{rank}" for rank in range(2, count + 1) for name in _PAIR]


def write_tokens(found: Iterable[Prediction], out: pathlib.Path) -> None:
    """tokens.npz: `names` (n,), and all that was found (n, h, w)."""
    _save(out / "tokens.npz", ((one.name, one.found) for one in found))


def write_features(
    found: Iterable[Prediction], out: pathlib.Path, blocks: Sequence[int]
) -> None:
    """features.npz: `names` (n,); cls and mean (n, blocks, D). No `blocks`: all."""

    def rows():
        for one in found:
            chosen = _chosen(blocks, len(one.found["cls"]))
            yield one.name, {name: x[chosen] for name, x in one.found.items()}

    _save(out / "features.npz", rows())


def write_attention(
    found: Iterable[Prediction],
    out: pathlib.Path,
    blocks: Sequence[int],
    patch: tuple[int, int] | None,
) -> None:
    """How much [CLS] and perhaps the `patch` look at each patch: numbers and pictures.

    attention.npz holds `names` (n,), cls and perhaps patch (n, blocks, A, h, w).
    """
    places = {"cls": None, "patch": patch}

    def rows():
        for number, one in enumerate(found):
            chosen = _chosen(blocks, len(one.found["cls"]))
            drawn = [
                attention.draw(one.image, maps, chosen, places[name])
                for name, maps in one.found.items()
            ]
            _save_picture(np.concatenate(drawn), out / "attention", number, one.name)
            yield one.name, {name: maps[chosen] for name, maps in one.found.items()}

    _save(out / "attention.npz", rows())


def write_pictures(found: Iterable[Prediction], out: pathlib.Path) -> None:
    """reconstruction/, one PNG an image."""
    for number, one in enumerate(found):
        picture = one.found["picture"]
        _save_picture(picture, out / "reconstruction", number, one.name)


# What can be asked for -> what writes it, given what was found, `out`, its settings.
WRITERS = {
    "labels": write_labels,
    "tokens": write_tokens,
    "features": write_features,
    "attention": write_attention,
    "reconstruction": write_pictures,
}


def _chosen(blocks: Sequence[int], count: int) -> list[int]:
    """The blocks asked for, or all `count` of them."""
    if not set(blocks) <= set(range(count)):
        raise ValueError(f"blocks {list(blocks)} must be some of 0..{count - 1}")
    return list(blocks or range(count))


def _save(path: pathlib.Path, rows: Iterable[tuple[str, dict]]) -> None:
    """Writes (name, arrays) of many images as one .npz."""
    rows = list(rows)
    names = np.array([name for name, _ in rows])
    arrays = {
        name: np.stack([found[name] for _, found in rows])
        for name in (rows[0][1] if rows else ())
    }
    np.savez(path, names=names, **arrays)


def _save_picture(
    picture: np.ndarray, folder: pathlib.Path, number: int, name: str
) -> None:
    folder.mkdir(exist_ok=True)
    stem = os.fsdecode(os.fsencode(pathlib.PurePath(name).stem)[:_STEM_BYTES])
    file = f"{number:06d}_{stem}.png"
    one_picture(picture[None]).save(folder / file)
