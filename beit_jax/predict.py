"""What a checkpoint makes of images: `python -m beit_jax.predict --checkpoint C …`.

--images names folders, archives (.tar, .tar.gz, .tgz, .zip) and image files, with
commas between; more may follow without a flag, so that `--images photos/*.jpg` is taken
as it looks. Into the folder --out goes, for each --what:

  labels          labels.csv and labels.jsonl: the likeliest classes of each image
  numbers         numbers.csv and numbers.jsonl: what a regression tells of each image
  segments        segments/, a PNG of labels for each image, overlays/ with a legend,
                  and areas.csv
  tokens          tokens.npz: a grid of visual tokens for each image; of a pre-trained
                  encoder those it predicts, beside the mask and the tokenizer's
  features        features.npz: [CLS] and the mean patch after every block
  attention       attention.npz and pictures: where [CLS] looks, or a --patch too
  reconstruction  pictures: image | reconstruction; of a pre-trained encoder
                  masked image | tokenizer's reconstruction | prediction

Beside grids there is `place`: top, left, bottom and right of the view that was cut into
them, in the image's own pixels.

Images are prepared as in an evaluation of the checkpoint; results keep the order in
which images are named (below a folder: of their paths). Files that cannot be used are
told on stderr and left out, and the exit code is then 65. What an earlier command has
written is only replaced with --overwrite, once the first image is done.
"""

import itertools
import math
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from beit_jax import command, lookup, sharding
from beit_jax.data import pipeline, sources
from beit_jax.data.sources.images import Images
from beit_jax.run import found as found_lib
from beit_jax.run import opened, predictions
from beit_jax.run.found import Prediction
from beit_jax.run.predictions import PREDICTIONS, Asked
from beit_jax.stores import on_disk

PER_DEVICE = 16  # images in a batch, unless the user says otherwise


def predict(
    checkpoint: str | pathlib.Path,
    images: Sequence[str | pathlib.Path],
    what: str = "labels",
    batch_size: int = 0,
    class_names: Sequence[str] = (),
    patch: tuple[int, int] | None = None,
    config: ConfigDict | None = None,
    tta: str = "",
) -> Iterator[Prediction]:
    """What a checkpoint makes of each image, one after another in their order.

    What `found` holds, the class in PREDICTIONS says.

        for one in predict("runs/finetune", ["photos", "cat.jpg"]):
            print(one.name, one.problem or one.found["label"][0])

    Args:
      checkpoint: any checkpoint, see checkpoints/read.py.
      images: folders, archives and image files.
      what: one of PREDICTIONS; no task gives all of them.
      batch_size: images at once, which changes but speed and memory; 0: PER_DEVICE on
        each device, or as many as there are.
      class_names: for "labels", of a checkpoint that does not know them.
      patch: for "attention", (row, column) of a patch that looks too.
      config: a recipe's, instead of the checkpoint's own; for heads, targets and tasks
        of your own, which it adds to their tables.
      tta: for "labels" and "numbers", views of each image to average, of
        tasks/viewing.py; "": as the config says.

    Raises:
      ValueError: no checkpoint, no images, or a checkpoint that does not give `what`.
    """
    return _predict(
        checkpoint,
        images,
        Asked(what, class_names, patch=patch),
        batch_size,
        config,
        tta,
    )


def _predict(
    checkpoint,
    images,
    asked: Asked,
    batch_size: int,
    config: ConfigDict | None,
    tta: str,
) -> Iterator[Prediction]:
    source = Images([str(path) for path in images])
    for note in source.notes:
        print(f"note: {note}", file=sys.stderr)
    seen = opened.open(checkpoint, config)
    if tta:
        seen.config.task.tta = tta
        if asked.what not in seen.task.outputs:
            raise ValueError(f"{asked.what} is of one view: leave out --tta={tta}")
    mesh = sharding.make_mesh(seen.config.mesh)
    size = batch_size or _enough(source.info.num_examples, mesh)
    sharding.check_batch_size(size, mesh)
    kind = predictions.of(seen, asked)
    data = kind.data(seen.config.data)
    stream = _stream(data, kind.spec, source, size, seen.config.seed)
    return _one_by_one(kind.on_mesh(mesh), stream, mesh)


def _enough(images: int, mesh: Mesh) -> int:
    """A batch size that the mesh divides, no larger than it is worth."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    return ways * min(PER_DEVICE, math.ceil(images / ways))


def _stream(
    data: ConfigDict, spec, source: Images, batch_size: int, seed: int
) -> pipeline.EvalStream:
    """The images as the checkpoint's evaluation would show them; bad ones are noted."""
    data.on_bad, data.max_bad, data.eval_cache = "skip", 1.0, ""
    data.batch_size = batch_size
    spec = spec | found_lib.FRAME
    return pipeline.eval_stream(data, spec, seed, source, again=False)


def _one_by_one(find, stream: pipeline.EvalStream, mesh: Mesh) -> Iterator[Prediction]:
    source = stream.plan.source
    for batch in stream.batches():
        with jax.set_mesh(mesh):
            found = find(batch) | {"frame": batch["frame"]}
        for row, index in enumerate(batch["index"].tolist()):
            if index < 0:  # it only fills the last batch
                continue
            name, image = source.describe(index), batch["image"][row]
            if problem := stream.ledger.sentences.get(index, ""):
                yield Prediction(name, problem, image, {})
            else:
                mine = {key: rows[row] for key, rows in found.items()}
                yield found_lib.of_rows(name, image, mine)


def _usable(found: Iterable[Prediction], bad: list[str]) -> Iterator[Prediction]:
    """Those without a problem; says what the others have, and notes it in `bad`."""
    for one in found:
        if one.problem:
            bad.append(one.problem)
            print(f"skipped: {one.problem}", file=sys.stderr)
        else:
            yield one


def _numbers(flag: str, texts: Sequence[str]) -> list[int]:
    if not all(text.isdecimal() for text in texts):
        raise ValueError(f"--{flag}={','.join(texts)} must be whole numbers from 0 on")
    return [int(text) for text in texts]


def main(options, *images: str) -> None:
    out, bad = on_disk(options.out, "--out"), []
    kind = lookup.lookup(PREDICTIONS, options.what, "--what")
    patch = _numbers("patch", options.patch)
    if len(patch) not in (0, 2):
        raise ValueError(f"--patch={','.join(options.patch)} must be ROW,COLUMN")
    asked = Asked(
        options.what,
        command.names("class_names", options.class_names),
        options.top,
        _numbers("blocks", options.blocks),
        tuple(patch) or None,
    )
    if not options.overwrite:
        found_lib.check_new(out, kind.files)
    images, size = [*options.images, *images], options.batch_size
    found = _predict(
        options.checkpoint, images, asked, size, options.config, options.tta
    )
    found = _usable(found, bad)
    # What cannot be done fails at the first image, when nothing is deleted yet.
    found = itertools.chain([*itertools.islice(found, 1)], found)
    out.mkdir(parents=True, exist_ok=True)
    if options.overwrite:
        found_lib.clear(out, kind.files)
    kind.write(found, out, asked)
    print("wrote", *(out / name for name in kind.files))
    if bad:
        sys.exit(sources.DataError.exit_code)


if __name__ == "__main__":
    command.run("predict", main)
