"""One pass over a split: `python -m beit_jax.evaluate --workdir W`.

Prints the metrics of a checkpoint as JSON, on the split that its own config names, or
of --config FILE[:ARG], or on images in class folders (or an archive of them): --data
PATH. Classes are then found by their names, which the checkpoint knows or
--class_names tells.

--evals NAME,NAME (or all) measures the named ones of the config's `evals`, too.

With --out DIR also writes metrics.json, the task's pictures (of a classifier
confusion.png and reliability.png) and its tables (per_class.csv, averages.csv, and
confusion.csv with the cells that are not 0); of a named evaluation into DIR/eval_NAME.
"""

import json
import pathlib
import sys
from collections.abc import Iterable, Sequence

import jax
from ml_collections import ConfigDict

from beit_jax import command, sharding
from beit_jax.lookup import nearest
from beit_jax.run import card as card_lib
from beit_jax.run import opened
from beit_jax.run.checks import check_classes
from beit_jax.run.evaluator import ALL, Evaluation, Evaluator, evaluations
from beit_jax.run.opened import Opened
from beit_jax.run.writer import write_report
from beit_jax.stores import on_disk


def chosen(seen: Opened, names: Sequence[str]) -> list[Evaluation]:
    """The plain evaluation of its config, if there is one, and the `evals` named."""
    config, path = seen.config, seen.saved.path
    names = list(config.evals) if list(names) == [ALL] else names
    for name in names:
        if name not in config.evals:
            raise ValueError(
                f"no {name!r} in the evals of {path}"
                f"{nearest(name, config.evals)}; there are: {', '.join(config.evals)}"
            )
    for name in set(config.evals) - set(names):
        del config.evals[name]
    found = evaluations(config, seen.task, once=True)
    if not found:
        raise ValueError(
            f"data.eval_source of {path} is empty: nothing to evaluate on; give "
            "--data with images, --evals with names of its evals, or --config with a "
            "recipe that has an eval_source"
        )
    check_classes(seen.task, *(one.stream for one in found))
    return found


def evaluate(
    path: str | pathlib.Path,
    config: ConfigDict | None = None,
    data: str = "",
    out: str = "",
    override_card: bool = False,
    class_names: Sequence[str] = (),
    evals: Sequence[str] = (),
    tta: str = "",
) -> dict[str, float]:
    """Metrics of a checkpoint over all of its config's `data.eval_source`.

    Args:
      path: any checkpoint, see checkpoints/read.py.
      config: instead of the one that the checkpoint carries.
      data: images in class folders, or an archive of them, instead of the eval_source.
      out: a folder for what there is to see besides; "": none.
      override_card: let images look otherwise than the checkpoint's card says.
      class_names: in the order of the logits, of a checkpoint that does not know them.
      evals: names of the config's `evals` to measure too, or ("all",).
      tta: views of each image to average, of tasks/viewing.py; "": as the config says.

    Raises:
      ValueError: no checkpoint, one that does not fit, or nothing to evaluate on.
    """
    folder = on_disk(out, "--out")
    seen = opened.open(path, config)
    if tta:
        seen.config.task.tta = tta
    config, task, card = seen.config, seen.task, seen.card
    if class_names:
        names = card_lib.class_names(seen.saved, task.classes, class_names)
        card = card | {"class_names": list(names)}
    if data:
        source = {"name": "folder", "class_names": tuple(card["class_names"])}
        config.data.eval_source = ConfigDict(source | {"path": data})
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch_size(config.data.batch_size, mesh)
    found = chosen(seen, evals)
    tell("note", (note for one in found for note in one.stream.notes))
    if not override_card:
        notes = {}  # in order, each once
        for one in found:
            here = card_lib.of(config, task, one.stream.info.class_names)
            said = card_lib.check(card, here, f"checkpoint {seen.saved.path}")
            notes |= dict.fromkeys(said)
        tell("note", notes)
    state, frozen = seen.on_mesh(mesh)
    shard = (jax.process_index(), jax.process_count())
    evaluator = Evaluator(task, mesh, config.seed)
    metrics = {}
    with jax.set_mesh(mesh):
        for one in found:
            measured, scorer = evaluator.measure(state, frozen, one, shard)
            metrics |= measured
            tell("skipped", one.stream.ledger.sentences.values())
            if out:
                count = config.eval.pictures
                pictures = evaluator.paint(state, frozen, one, shard, count, scorer)
                if not shard[0]:
                    tables = scorer.report().tables
                    write_report(folder / one.prefix, measured, pictures, tables)
    return metrics


def tell(kind: str, sentences: Iterable[str]) -> None:
    for sentence in sentences:
        print(f"{kind}: {sentence}", file=sys.stderr)


def main(options) -> None:
    metrics = evaluate(
        options.workdir,
        options.config,
        options.data,
        options.out,
        options.override_card,
        command.names("class_names", options.class_names),
        options.evals,
        options.tta,
    )
    if jax.process_index() == 0:
        print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    command.run("evaluate", main)
