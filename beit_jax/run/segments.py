"""What is written of maps of classes: labels, pictures, areas."""

import pathlib
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

from beit_jax.charts import legend
from beit_jax.palette import COLOURS, palette
from beit_jax.run.found import Prediction, place, save_picture
from beit_jax.text import UTF8, Table

FILES = ("areas.csv", "segments", "overlays")


def whole(one: Prediction) -> np.ndarray:
    """(H, W) uint16, the class of each pixel of the image itself."""
    return one.frame.back(one.found["segments"])


def write(found: Iterable[Prediction], out: pathlib.Path) -> None:
    """segments/, a PNG of labels an image, whose palette colours them for the eye (of
    more than 256 classes 16 bits); overlays/; areas.csv, a line a class an image."""
    with (out / "areas.csv").open("w", newline="", **UTF8) as file:
        table = Table(file)
        table.write(["image", "class", "pixels", "share"])
        for number, one in enumerate(found):
            classes, names = whole(one), one.found["class_names"].tolist()
            _save_labels(classes, len(names), place(out / "segments", number, one.name))
            areas = list(_areas(classes))
            drawn = _overlay(one.frame.back(one.image), classes, names, areas)
            save_picture(drawn, out / "overlays", number, one.name)
            for label, pixels in areas:
                share = f"{pixels / classes.size:.6g}"
                table.write([one.name, names[label], pixels, float(share)])


def _areas(classes: np.ndarray) -> Iterator[tuple[int, int]]:
    """The classes that are there and their pixels, the largest first."""
    pixels = np.bincount(classes.ravel())
    for number in np.argsort(-pixels, kind="stable").tolist():
        if pixels[number]:
            yield number, int(pixels[number])


def _overlay(
    image: np.ndarray,
    classes: np.ndarray,
    names: list[str],
    areas: list[tuple[int, int]],
) -> np.ndarray:
    """The image under its classes' colours, and below it which is which."""
    colours = np.resize(palette(), (len(names), 3))
    blended = legend.blend(image, classes, colours)
    beside = max(0, legend.COLUMN - blended.shape[1])
    blended = np.pad(blended, ((0, 0), (0, beside), (0, 0)), constant_values=255)
    told = [f"{pixels / classes.size:.1%} {names[label]}" for label, pixels in areas]
    shown = colours[[label for label, _ in areas]]
    return np.concatenate([blended, legend.draw(told, shown, blended.shape[1])])


def _save_labels(classes: np.ndarray, count: int, path: pathlib.Path) -> None:
    if count > COLOURS:
        Image.fromarray(classes.astype(np.uint16)).save(path)
        return
    image = Image.fromarray(classes.astype(np.uint8), mode="P")
    image.putpalette(palette().tobytes())
    image.save(path)
