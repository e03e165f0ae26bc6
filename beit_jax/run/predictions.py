"""What can be predicted of images: one class and a line in PREDICTIONS each.

A prediction is made of a checkpoint and what a user asks, and has

  files           what `write` makes in a folder
  spec            of the example that it looks at, besides the image's frame
  data(data)      the section `data` as it wants it
  on_mesh(mesh)   a function of a batch -> name -> (B, ...), on the host
  write(found, out, asked)   puts what was found of many images into a folder; static

`OfTask` gives what a task tells of images, `OfEncoder` what an encoder alone does.
Numbers are of the network's view of an image; `Prediction.frame` leads back into it.
"""

import functools
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from beit_jax import lookup, sharding
from beit_jax.charts import attention
from beit_jax.run import card as card_lib
from beit_jax.run import segments
from beit_jax.run.evaluator import compiled
from beit_jax.run.found import Prediction, save_arrays, save_picture
from beit_jax.run.opened import Opened
from beit_jax.tasks import encoders
from beit_jax.text import UTF8, Table

Batch = Mapping[str, np.ndarray]
Find = Callable[[Batch], dict[str, np.ndarray]]

INPUTS = ("image", "token_image", "mask")  # of a task, made of an image alone
_PAIR = ("label", "probability")
_NUMBERS = ("target", "number")


class Asked(NamedTuple):
    """What a user says of a prediction."""

    what: str  # of PREDICTIONS
    class_names: Sequence[str] = ()  # of a checkpoint that does not know them
    top: int = 5  # so many likeliest classes
    blocks: Sequence[int] = ()  # counted from 0; (): all
    patch: tuple[int, int] | None = None  # row and column, counted from 0


class OfTask:
    """What `Task.predict` gives by the name that is asked for.

    Raises:
      ValueError: the checkpoint's task does not give it.
    """

    def __init__(self, opened: Opened, asked: Asked):
        self._opened, self._asked, task = opened, asked, opened.task
        if asked.what not in task.outputs:
            raise ValueError(
                f"{opened.saved.path} is of task {opened.config.task.name!r}, which "
                f"gives {', '.join(offered(opened)) or 'nothing'}, not {asked.what}"
            )
        self.spec = {k: form for k, form in task.eval_spec.items() if k in INPUTS}
        self.data = task.eval_data

    def on_mesh(self, mesh: Mesh) -> Find:
        opened = self._opened
        state, frozen = opened.on_mesh(mesh)
        method = functools.partial(opened.task.predict, self._asked.what)
        step = compiled(method, mesh, opened.config.seed)
        return lambda batch: jax.device_get(step(state, frozen, batch))


class OfEncoder:
    """What `encoders.outputs` gives by the name that is asked for.

    Of pre-training, no tokenizer need be there for it.

    Raises:
      ValueError: the checkpoint has no encoder.
    """

    def __init__(self, opened: Opened, asked: Asked):
        self._encoder, self._asked = opened.encoder, asked
        size = (*self._encoder.size, 3)
        self.spec = {"image": jax.ShapeDtypeStruct(size, np.uint8)}

    def data(self, data: ConfigDict) -> ConfigDict:
        return data

    def on_mesh(self, mesh: Mesh) -> Find:
        encoder, asked = self._encoder, self._asked
        everywhere = sharding.replicated(mesh)
        params = jax.device_put(encoder.params, everywhere)

        @functools.partial(jax.jit, out_shardings=everywhere)
        def step(params, batch):
            image = encoder.space.to_float(batch["image"])
            return encoders.outputs(
                encoder.module, params, image, asked.what, asked.patch
            )

        return lambda batch: jax.device_get(
            step(params, sharding.put_batch(batch, mesh))
        )


class OfClasses(OfTask):
    """The same, of a task whose classes must have names."""

    def __init__(self, opened: Opened, asked: Asked):
        super().__init__(opened, asked)
        classes = opened.task.classes
        self._names = card_lib.class_names(opened.saved, classes, asked.class_names)


class Labels(OfClasses):
    """label (C,), names of classes, the likeliest first, and probability (C,)."""

    files = ("labels.csv", "labels.jsonl")

    def on_mesh(self, mesh: Mesh) -> Find:
        find = super().on_mesh(mesh)
        return lambda batch: ranked(find(batch)["log_probability"], self._names)

    @staticmethod
    def write(found: Iterable[Prediction], out: pathlib.Path, asked: Asked) -> None:
        """Each image's likeliest classes, for tables and for programs."""
        with (
            (out / "labels.csv").open("w", newline="", **UTF8) as file,
            (out / "labels.jsonl").open("w", **UTF8) as lines,
        ):
            table = Table(file)
            for number, one in enumerate(found):
                names = one.found["label"][: asked.top].tolist()
                best = one.found["probability"][: asked.top]
                pairs = [*zip(names, (float(f"{p:.6g}") for p in best), strict=True)]
                if not number:
                    table.write(["image", *_PAIR, *_more_columns(len(pairs))])
                table.write([one.name, *(value for pair in pairs for value in pair)])
                best = [dict(zip(_PAIR, pair, strict=True)) for pair in pairs]
                record = {"image": one.name, "labels": best}
                lines.write(json.dumps(record, ensure_ascii=False) + "\n")


class Numbers(OfTask):
    """target (T,), names of what a regression tells, and number (T,) float32."""

    files = ("numbers.csv", "numbers.jsonl")

    def on_mesh(self, mesh: Mesh) -> Find:
        find, names = super().on_mesh(mesh), np.array(self._opened.task.targets)

        def named(batch: Batch) -> dict[str, np.ndarray]:
            numbers = find(batch)["numbers"]
            return {"target": np.tile(names, (len(numbers), 1)), "number": numbers}

        return named

    @staticmethod
    def write(found: Iterable[Prediction], out: pathlib.Path, asked: Asked) -> None:
        """Each image's numbers, for tables and for programs."""
        with (
            (out / "numbers.csv").open("w", newline="", **UTF8) as file,
            (out / "numbers.jsonl").open("w", **UTF8) as lines,
        ):
            table = Table(file)
            for number, one in enumerate(found):
                pairs = zip(*(one.found[key].tolist() for key in _NUMBERS), strict=True)
                values = {name: float(f"{x:.6g}") for name, x in pairs}
                if not number:
                    table.write(["image", *values])
                table.write([one.name, *values.values()])
                record = {"image": one.name, "numbers": values}
                lines.write(json.dumps(record, ensure_ascii=False) + "\n")


class Segments(OfClasses):
    """segments (*room) uint16, the class of each pixel, class_names (C,); the map of
    the image itself is `frame.back(segments)`."""

    files = segments.FILES

    def on_mesh(self, mesh: Mesh) -> Find:
        find, names = super().on_mesh(mesh), np.array(self._names)

        def named(batch: Batch) -> dict[str, np.ndarray]:
            found = find(batch)
            return found | {"class_names": np.tile(names, (len(batch["frame"]), 1))}

        return named

    @staticmethod
    def write(found: Iterable[Prediction], out: pathlib.Path, asked: Asked) -> None:
        segments.write(found, out)


class Tokens(OfTask):
    """Grids (h, w) of tokens and what belongs to them; see `Task.predict`."""

    files = ("tokens.npz",)

    @staticmethod
    def write(found: Iterable[Prediction], out: pathlib.Path, asked: Asked) -> None:
        """tokens.npz: `names` (n,), all that was found (n, h, w), `place` (n, 4)."""
        save_arrays(out / "tokens.npz", ((one.name, placed(one)) for one in found))


class Reconstruction(OfTask):
    """picture (H, W, 3) uint8, columns side by side."""

    files = ("reconstruction",)

    @staticmethod
    def write(found: Iterable[Prediction], out: pathlib.Path, asked: Asked) -> None:
        """reconstruction/, one PNG an image."""
        for number, one in enumerate(found):
            picture = one.found["picture"]
            save_picture(picture, out / "reconstruction", number, one.name)


class Features(OfEncoder):
    """cls and the mean of the patches, (L, D) float32, of every block."""

    files = ("features.npz",)

    @staticmethod
    def write(found: Iterable[Prediction], out: pathlib.Path, asked: Asked) -> None:
        """features.npz: `names` (n,); cls and mean (n, blocks, D)."""

        def rows():
            for one in found:
                chosen = _chosen(asked.blocks, len(one.found["cls"]))
                yield one.name, {name: x[chosen] for name, x in one.found.items()}

        save_arrays(out / "features.npz", rows())


class Attention(OfEncoder):
    """How much [CLS] and perhaps a patch look at each patch, (L, A, h, w) float32."""

    files = ("attention.npz", "attention")

    @staticmethod
    def write(found: Iterable[Prediction], out: pathlib.Path, asked: Asked) -> None:
        """Pictures, and attention.npz: `names` (n,); cls and perhaps patch
        (n, blocks, A, h, w); `place` (n, 4)."""
        places = {"cls": None, "patch": asked.patch}

        def rows():
            for number, one in enumerate(found):
                chosen = _chosen(asked.blocks, len(one.found["cls"]))
                drawn = [
                    attention.draw(one.image, maps, chosen, places[name])
                    for name, maps in one.found.items()
                ]
                picture = np.concatenate(drawn)
                save_picture(picture, out / "attention", number, one.name)
                maps = {name: maps[chosen] for name, maps in one.found.items()}
                yield one.name, placed(one._replace(found=maps))

        save_arrays(out / "attention.npz", rows())


PREDICTIONS = {
    "labels": Labels,
    "numbers": Numbers,
    "segments": Segments,
    "tokens": Tokens,
    "features": Features,
    "attention": Attention,
    "reconstruction": Reconstruction,
}


def of(opened: Opened, asked: Asked) -> OfTask | OfEncoder:
    """Raises ValueError for what there is not, or the checkpoint does not give."""
    kind = lookup.lookup(PREDICTIONS, asked.what, "beit_jax.run.predictions")
    return kind(opened, asked)


def offered(opened: Opened) -> list[str]:
    """Everything that a checkpoint gives."""
    alone = [name for name, kind in PREDICTIONS.items() if issubclass(kind, OfEncoder)]
    return [*opened.task.outputs, *(alone if opened.has_encoder else ())]


def ranked(logs: np.ndarray, class_names: Sequence[str]) -> dict[str, np.ndarray]:
    """(B, C) log-probabilities -> names and probabilities, the likeliest first."""
    order = np.argsort(-logs, axis=1, kind="stable")  # of equals the first, as top_k
    best = np.exp(np.take_along_axis(logs, order, axis=1), dtype=np.float64)
    return {"label": np.array(class_names)[order], "probability": best}


def placed(one: Prediction) -> dict[str, np.ndarray]:
    """What was found in a grid, and `place`: see `Frame.back_grid`."""
    return one.found | {"place": one.frame.back_grid()}


def _more_columns(count: int) -> list[str]:
    return [f"{name}_{rank}" for rank in range(2, count + 1) for name in _PAIR]


def _chosen(blocks: Sequence[int], count: int) -> list[int]:
    """The blocks asked for, or all `count` of them."""
    if not set(blocks) <= set(range(count)):
        raise ValueError(f"blocks {list(blocks)} must be some of 0..{count - 1}")
    return list(blocks or range(count))
