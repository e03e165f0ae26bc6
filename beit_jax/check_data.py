"""Walks a data set before a run does: `python -m beit_jax.check_data --data DIR`.

DIR may be an archive or a list (.csv, .jsonl), too. Or `--config FILE[:ARG]` for the
source (or, with --evaluation, the eval_source) and the augmentation of a recipe. Tells
what cannot be used, images a class, sizes, formats, mean and standard deviation, images
that look alike (with a recipe in its eval_source, too), and the speed of reading; of
label maps the shares of classes, of what is ignored, and how they are stored. Writes an
example sheet of augmented views and masks or label maps, sheet.png, and all that was
found, report.json, to --out.
The exit code is 65 if an example cannot be used.
"""

import json
import sys
import time
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from beit_jax import command, tasks
from beit_jax import config as config_lib
from beit_jax.charts import legend
from beit_jax.data import pipeline, sources
from beit_jax.data.batches import Batches
from beit_jax.data.sources import segment_classes
from beit_jax.data.survey import Survey
from beit_jax.models.pixels import PIXEL_SPACES
from beit_jax.stores import on_disk
from beit_jax.tasks import on_device
from beit_jax.text import UTF8, one_line

_CELL = 112  # pixels of a picture in the sheet
_ROWS, _VIEWS = 8, 4  # images in the sheet, and random views of each
_IN_SHEET = (
    *("image", "token_image", "mask", "labels_2d"),
    *("jitter", "erase", "erase_seed"),
)
_BY_CLASS = {"images_per_class": "", "share_of_pixels": " share of pixels"}
LISTS = (".csv", ".jsonl")
_SHOWN = 20  # bad examples that are printed; the report has all


def tell(found: dict[str, Any], console: Console) -> None:
    """Prints a report for a person."""
    table = Table(show_header=False, title=_plain(found["name"]))
    for name, value in found.items():
        if name not in ("name", "notes", "bad", *_BY_CLASS):
            table.add_row(name, _plain(_short(value)))
    if found["images_per_class"]:
        table.add_row("classes", str(len(found["images_per_class"])))
    for name, what in _BY_CLASS.items():
        counts = sorted((n, name) for name, n in found.get(name, {}).items())
        for size, some in (("smallest", counts[:5]), ("largest", counts[-5:])):
            told = ", ".join(f"{name} {n}" for n, name in some)
            if told:
                table.add_row(f"{size}{what}", _plain(told))
    console.print(table)
    for note in found["notes"]:
        console.print(_plain(f"note: {note}"))
    for name, problem in [*found["bad"].items()][:_SHOWN]:
        console.print(_plain(f"bad: {name}: {problem}"))
    if found["bad"]:
        console.print(f"{len(found['bad'])} of {found['looked_at']} cannot be used")


def _plain(text: str) -> Text:
    """As it stands: neither markup nor the name of an emoji."""
    return Text(one_line(text))


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return str(value)


def sheet(data: ConfigDict, spec: dict[str, Any]) -> Image.Image:
    """Random views of a few images, each plain and masked or with its label map.

    With a token view, or below them which colour is which class. Jitter on the device
    and erasing are done here as the step does them; Mixup and CutMix are not, which mix
    images with each other.
    """
    data = data.copy_and_resolve_references()
    source = sources.build(data.source)
    rows = min(_ROWS, source.info.num_examples)
    data.batch_size, data.on_bad, data.max_bad = rows * _VIEWS, "skip", 1.0
    data.augment.repeats = _VIEWS
    if "label_map" in spec:  # of views, too, though an evaluation's are whole
        shape = spec["label_map"].shape
        spec = spec | {"labels_2d": jax.ShapeDtypeStruct(shape, np.int32)}
    spec = {name: form for name, form in spec.items() if name in _IN_SHEET}
    names = source.info.class_names
    colours = np.array(source.colours or segment_classes.made(len(names)))
    batch = next(pipeline.train_stream(data, spec, seed=0).batches())
    batch["image"] = _augmented(batch, "image")
    lines = []
    for first in range(0, data.batch_size, _VIEWS):
        pictures = []
        for i in range(first, first + _VIEWS):
            pictures.append(batch["image"][i])
            if "mask" in batch:
                pictures.append(_masked(batch["image"][i], batch["mask"][i]))
            if "labels_2d" in batch:
                labels = batch["labels_2d"][i]
                pictures.append(legend.blend(batch["image"][i], labels, colours))
        if "token_image" in batch:
            pictures.append(_augmented(batch, "token_image")[first])
        lines.append(np.concatenate([_cell(p) for p in pictures], axis=1))
    if "labels_2d" in batch:
        lines.append(legend.draw(names, colours, lines[0].shape[1]))
    return Image.fromarray(np.concatenate(lines))


def _augmented(batch: dict[str, np.ndarray], name: str) -> np.ndarray:
    """The view as the step shows it to the model, in uint8."""
    space = PIXEL_SPACES["imagenet"]  # erasing draws N(0, 1) in a space like this
    image = on_device.pixels(batch, name)
    if "erase" in batch and name == "image":
        noisy = on_device.erase(
            space.to_float(image), batch["erase"], batch["erase_seed"]
        )
        image = space.to_uint8(noisy)
    return np.asarray(image, np.uint8)


def _masked(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    patch = image.shape[0] // mask.shape[0], image.shape[1] // mask.shape[1]
    hidden = mask.repeat(patch[0], 0).repeat(patch[1], 1)
    return np.where(hidden[..., None], np.uint8(128), image)


def _cell(picture: np.ndarray) -> np.ndarray:
    image = ImageOps.pad(Image.fromarray(picture), (_CELL - 4, _CELL - 4))
    return np.asarray(ImageOps.expand(image, 2, "white"))


def _of_images(path: str) -> tuple[ConfigDict, dict[str, Any]]:
    """Settings and spec of BEiT's pre-training at 224 px on the images at `path`."""
    data = config_lib.defaults().data
    listed = path.lower().endswith(LISTS)
    data.source = ConfigDict({"name": "list" if listed else "folder", "path": path})
    data.mask = ConfigDict({"name": "blockwise", "max_patches": 75})
    data.augment.jitter = 0.4
    spec = {
        "image": jax.ShapeDtypeStruct((224, 224, 3), np.uint8),
        "token_image": jax.ShapeDtypeStruct((112, 112, 3), np.uint8),
        "mask": jax.ShapeDtypeStruct((14, 14), np.bool_),
    }
    return data, spec


def main(options) -> None:
    if bool(options.data) == bool(options.config):
        raise ValueError("give --data FOLDER_OR_ARCHIVE_OR_LIST or --config FILE[:ARG]")
    if options.config:
        config_lib.check(options.config)
        data, task = options.config.data, tasks.build(options.config)
        spec = task.train_spec
        if options.evaluation:
            data.source, spec = data.eval_source, task.eval_spec
    else:
        data, spec = _of_images(options.data)
    console, begun = Console(), time.perf_counter()
    source = sources.build(data.source)
    plan = Batches(source, data, spec, seed=0, training=False)
    survey = Survey(source, plan.views)
    total = min(options.limit or np.inf, source.info.num_examples)
    for _ in track(survey.walk(options.limit), "looking", total, console=console):
        pass
    if data.eval_source and not options.evaluation:
        survey.compare(sources.build(data.eval_source), options.limit)
    found = survey.report(time.perf_counter() - begun)
    tell(found, console)
    out = on_disk(options.out, "--out")
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(found, indent=2) + "\n", **UTF8)
    console.print(_plain(f"wrote {out / 'report.json'}"))
    if len(survey.bad) < survey.looked_at:
        sheet(data, spec).save(out / "sheet.png")
        console.print(_plain(f"wrote {out / 'sheet.png'}"))
    if survey.bad:
        sys.exit(sources.DataError.exit_code)


if __name__ == "__main__":
    command.run("check-data", main)
