"""What a checkpoint makes of images: `python -m beit_jax.predict --checkpoint C …`.

--images names folders, archives (.tar, .tar.gz, .tgz, .zip) and image files, with
commas between; more may follow without a flag, so that `--images photos/*.jpg` is taken
as it looks. Into the folder --out goes, for each --what:

  labels          labels.csv and labels.jsonl: the likeliest classes of each image
  tokens          tokens.npz: a grid of visual tokens for each image; of a pre-trained
                  encoder those it predicts, beside the mask and the tokenizer's
  features        features.npz: [CLS] and the mean patch after every block
  attention       attention.npz and pictures: where [CLS] looks, or a --patch too
  reconstruction  pictures: image | reconstruction; of a pre-trained encoder
                  masked image | tokenizer's reconstruction | prediction

Images are prepared as in an evaluation of the checkpoint; results keep the order in
which images are named (below a folder: of their paths). Files that cannot be used are
told on stderr and left out, and the exit code is then 65. What an earlier command has
written is only replaced with --overwrite, once the first image is done.
"""

import functools
import itertools
import math
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict

from beit_jax import command, sharding, tasks
from beit_jax.checkpoints import steps
from beit_jax.checkpoints.read import restore
from beit_jax.data import pipeline, sources
from beit_jax.data.sources.images import Images
from beit_jax.run import bank, predictions
from beit_jax.run import card as card_lib
from beit_jax.run.evaluator import compiled
from beit_jax.run.opened import config_for, on_mesh
from beit_jax.run.predictions import Prediction
from beit_jax.tasks import encoders

PER_DEVICE = 16  # images in a batch, unless the user says otherwise
INPUTS = ("image", "token_image", "mask")  # of a task, made of an image alone

# A batch -> what was found of it, and what an example of it holds.
Finder = tuple[
    Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]],
    Mapping[str, jax.ShapeDtypeStruct],
]


def predict(
    checkpoint: str | pathlib.Path,
    images: Sequence[str | pathlib.Path],
    what: str = "labels",
    batch_size: int = 0,
    class_names: Sequence[str] = (),
    patch: tuple[int, int] | None = None,
    config: ConfigDict | None = None,
) -> Iterator[Prediction]:
    """What a checkpoint makes of each image, one after another in their order.

    In `found` there is, for "labels", label (C,) with the names of all classes, the
    likeliest first, and probability (C,) float64; for "features" and "attention" what
    `encoders.outputs`, for all else what `Task.predict` gives of this image.

        for one in predict("runs/finetune", ["photos", "cat.jpg"]):
            print(one.name, one.problem or one.found["label"][0])

    Args:
      checkpoint: any checkpoint, see checkpoints/read.py.
      images: folders, archives and image files.
      what: one of predictions.FILES; no task gives all of them.
      batch_size: images at once, which changes but speed and memory; 0: PER_DEVICE on
        each device, or as many as there are.
      class_names: for "labels", of a checkpoint that does not know them.
      patch: for "attention", (row, column) of a patch that looks too.
      config: a recipe's, instead of the checkpoint's own; for heads, targets and tasks
        of your own, which it adds to their tables.

    Raises:
      ValueError: no checkpoint, no images, or a checkpoint that does not give `what`.
    """
    source = Images([str(path) for path in images])
    for note in source.notes:
        print(f"note: {note}", file=sys.stderr)
    saved = restore(checkpoint)
    config = config_for(saved, config)
    mesh = sharding.make_mesh(config.mesh)
    config.data.batch_size = batch_size or _enough(source.info.num_examples, mesh)
    sharding.check_batch_size(config.data.batch_size, mesh)
    if what in encoders.OUTPUTS:
        find, spec = _by_encoder(saved, what, patch, mesh)
    else:
        find, spec = _by_task(saved, config, what, class_names, mesh)
    return _one_by_one(find, _stream(config, spec, source), mesh)


def _by_encoder(
    saved: steps.Restored, what: str, patch: tuple[int, int] | None, mesh: Mesh
) -> Finder:
    """What needs no task: nor, of pre-training, the tokenizer's checkpoint."""
    encoder, size, space = bank.encoder_of(saved)
    params = jax.device_put(saved.params["encoder"], sharding.replicated(mesh))

    @functools.partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def step(params, batch):
        image = space.to_float(batch["image"])
        return encoders.outputs(encoder, params, image, what, patch)

    def find(batch):
        return jax.device_get(step(params, sharding.put_batch(batch, mesh)))

    return find, {"image": jax.ShapeDtypeStruct((*size, 3), np.uint8)}


def _by_task(
    saved: steps.Restored,
    config: ConfigDict,
    what: str,
    class_names: Sequence[str],
    mesh: Mesh,
) -> Finder:
    task = tasks.build(config)
    if what not in task.outputs:
        more = encoders.OUTPUTS if bank.has_encoder(saved) else ()
        raise ValueError(
            f"{saved.path} is of task {config.task.name!r}, which gives "
            f"{', '.join((*task.outputs, *more)) or 'nothing'}, not {what}"
        )
    names = ()
    if what == "labels":
        names = card_lib.class_names(saved, task.classes, class_names)
    state, frozen = on_mesh(saved, task, mesh)
    step = compiled(functools.partial(task.predict, what), mesh, config.seed)

    def find(batch):
        found = jax.device_get(step(state, frozen, batch))
        return _ranked(found["log_probability"], names) if names else found

    return find, task.eval_spec


def _enough(images: int, mesh: Mesh) -> int:
    """A batch size that the mesh divides, no larger than it is worth."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    return ways * min(PER_DEVICE, math.ceil(images / ways))


def _stream(config: ConfigDict, spec, source: Images) -> pipeline.EvalStream:
    """The images as the checkpoint's evaluation would show them; bad ones are noted."""
    data = config.data
    data.on_bad, data.max_bad, data.eval_cache = "skip", 1.0, ""
    spec = {name: form for name, form in spec.items() if name in INPUTS}
    return pipeline.eval_stream(data, spec, config.seed, source)


def _ranked(logs: np.ndarray, class_names: Sequence[str]) -> dict[str, np.ndarray]:
    """(B, C) log-probabilities -> names and probabilities, the likeliest first."""
    order = np.argsort(-logs, axis=1, kind="stable")  # of equals the first, as top_k
    best = np.exp(np.take_along_axis(logs, order, axis=1), dtype=np.float64)
    return {"label": np.array(class_names)[order], "probability": best}


def _one_by_one(find, stream: pipeline.EvalStream, mesh: Mesh) -> Iterator[Prediction]:
    source = stream.plan.source
    for batch in stream.batches():
        with jax.set_mesh(mesh):
            found = find(batch)
        for row, index in enumerate(batch["index"].tolist()):
            if index < 0:  # it only fills the last batch
                continue
            problem = stream.ledger.sentences.get(index, "")
            mine = {} if problem else {name: rows[row] for name, rows in found.items()}
            yield Prediction(source.describe(index), problem, batch["image"][row], mine)


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
    what, out, bad = options.what, pathlib.Path(options.out).expanduser(), []
    blocks = _numbers("blocks", options.blocks)
    patch = _numbers("patch", options.patch)
    if len(patch) not in (0, 2):
        raise ValueError(f"--patch={','.join(options.patch)} must be ROW,COLUMN")
    patch = tuple(patch) or None
    if not options.overwrite:
        predictions.check_new(out, what)
    found = predict(
        options.checkpoint,
        [*options.images, *images],
        what,
        options.batch_size,
        command.names("class_names", options.class_names),
        patch,
        options.config,
    )
    settings = {
        "labels": {"top": options.top},
        "features": {"blocks": blocks},
        "attention": {"blocks": blocks, "patch": patch},
    }
    found = _usable(found, bad)
    # What cannot be done fails at the first image, when nothing is deleted yet.
    found = itertools.chain([*itertools.islice(found, 1)], found)
    out.mkdir(parents=True, exist_ok=True)
    if options.overwrite:
        predictions.clear(out, what)
    predictions.WRITERS[what](found, out, **settings.get(what, {}))
    print("wrote", *(out / name for name in predictions.FILES[what]))
    if bad:
        sys.exit(sources.DataError.exit_code)


if __name__ == "__main__":
    flags.DEFINE_string(
        "checkpoint", None, "a run's work directory, or any other checkpoint"
    )
    command.define_paths("images", "folders, archives, image files: PATH[,PATH...]")
    flags.DEFINE_enum("what", "labels", [*predictions.FILES], "what to find")
    flags.DEFINE_string("out", "predictions", "the folder for what was found")
    flags.DEFINE_bool("overwrite", False, "replace what an earlier command wrote")
    flags.DEFINE_integer("batch_size", 0, f"0: up to {PER_DEVICE} images a device")
    flags.DEFINE_integer("top", 5, "labels: so many likeliest classes", lower_bound=1)
    command.define_class_names()
    command.define_config("a recipe, FILE[:ARG], instead of the checkpoint's config")
    flags.DEFINE_list("blocks", [], "features, attention: which, 0,11 say; else all")
    flags.DEFINE_list("patch", [], "attention: ROW,COLUMN of a patch, from 0")
    flags.mark_flag_as_required("checkpoint")
    command.run(main, ("[IMAGE ...]",))
