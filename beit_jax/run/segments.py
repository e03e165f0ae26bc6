"""What is written of maps of classes: labels, pictures, areas."""

import pathlib
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

from beit_jax.charts import overlay
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
            drawn = overlay.draw(one.frame.back(one.image), classes, names)
            save_picture(drawn, out / "overlays", number, one.name)
            for name, pixels in _areas(classes, names):
                share = f"{pixels / classes.size:.6g}"
                table.write([one.name, name, pixels, float(share)])


def _areas(classes: np.ndarray, names: list[str]) -> Iterator[tuple[str, int]]:
    """The classes that are there, the largest first."""
    pixels = np.bincount(classes.ravel(), minlength=len(names))
    for number in np.argsort(-pixels, kind="stable"):
        if pixels[number]:
            yield names[number], int(pixels[number])


def _save_labels(classes: np.ndarray, count: int, path: pathlib.Path) -> None:
    if count > COLOURS:
        Image.fromarray(classes.astype(np.uint16)).save(path)
        return
    image = Image.fromarray(classes.astype(np.uint8), mode="P")
    image.putpalette(palette().tobytes())
    image.save(path)
