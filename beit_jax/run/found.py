"""What was found of images, and how arrays and pictures of it are put into a folder."""

import os
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np

from beit_jax.data.frame import Frame
from beit_jax.run.writer import one_picture

_STEM_BYTES = 200  # of an image's name in a picture's, which may have 255

# What an example tells of where its view lies, see `Frame.numbers`.
FRAME = {"frame": jax.ShapeDtypeStruct((11,), np.int32)}


class Prediction(NamedTuple):
    """What was found of one image."""

    name: str  # the path of its file
    problem: str  # a sentence on why it could not be used; empty if it could
    image: np.ndarray  # (H, W, 3) uint8, as the network saw it
    found: dict[str, np.ndarray]  # see `predict`; {} if there is a problem
    frame: Frame | None = None  # where that lies in the image; None: a problem


def of_rows(name: str, image: np.ndarray, found: dict[str, np.ndarray]) -> Prediction:
    """One without a problem; of `found`, "frame" is what FRAME asks for."""
    frame = Frame.of_numbers(found.pop("frame"))
    return Prediction(name, "", image, found, frame)


def check_new(out: pathlib.Path, files: Iterable[str]) -> None:
    """Raises ValueError when one of `files` is in `out` already."""
    if out.is_file():
        raise ValueError(f"--out={out} is a file; name a folder, it may be a new one")
    for name in files:
        if (out / name).exists():
            raise ValueError(
                f"{out / name} exists; name another folder by --out, or replace what "
                "an earlier command wrote by --overwrite"
            )


def clear(out: pathlib.Path, files: Iterable[str]) -> None:
    """Deletes what an earlier command has written as `files`; nothing else."""
    for name in files:
        path = out / name
        for file in path.glob(f"{'[0-9]' * 6}_*.png") if path.is_dir() else [path]:
            file.unlink(missing_ok=True)


def save_arrays(path: pathlib.Path, rows: Iterable[tuple[str, dict]]) -> None:
    """Writes (name, arrays) of many images as one .npz."""
    rows = list(rows)
    names = np.array([name for name, _ in rows])
    arrays = {
        name: np.stack([found[name] for _, found in rows])
        for name in (rows[0][1] if rows else ())
    }
    np.savez(path, names=names, **arrays)


def save_picture(
    picture: np.ndarray, folder: pathlib.Path, number: int, name: str
) -> None:
    one_picture(picture[None]).save(place(folder, number, name))


def place(folder: pathlib.Path, number: int, name: str) -> pathlib.Path:
    """Where a picture of an image goes; makes the folder."""
    folder.mkdir(exist_ok=True)
    stem = os.fsdecode(os.fsencode(pathlib.PurePath(name).stem)[:_STEM_BYTES])
    return folder / f"{number:06d}_{stem}.png"
