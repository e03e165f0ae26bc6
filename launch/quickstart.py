"""The whole chain, small: tokenizer -> masked image modelling -> few-label fine-tuning.

Runs the three recipes configs/digits_*.py one after the other, the last one for three
seeds, from the pre-trained encoder and from scratch, and prints what came out.
"""

import argparse
import pathlib
import statistics
import sys
import time

import jax
from absl import logging
from rich.console import Console
from rich.table import Table

from beit_jax import config as config_lib
from beit_jax.command import PREEMPTED
from beit_jax.data import sources
from beit_jax.run.stop import Preempted
from beit_jax.train import train

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
SEEDS = (0, 1, 2)


def recipe(name: str, data: str | None, arg: str = ""):
    """The recipe of `configs/name.py:arg`, on the images in `data` if that is given."""
    config = config_lib.load(CONFIGS / f"{name}.py", arg)
    if data:
        folder = {"name": "folder", "path": data}
        labels = config.data.source.get("labels_per_class", 0)
        config.data.source = folder | {"part": "train", "labels_per_class": labels}
        config.data.eval_source = folder | {"part": "test"}
        config.data.augment.flip = True
    return config


def count_classes(data: str | None) -> int:
    """How many classes the images have; 0 if they have none.

    Raises:
      ValueError: images that cannot be used, or too few of a class to fine-tune on.
    """
    source = sources.build(recipe("digits_tokenizer", data).data.source)
    classes = len(source.info.class_names)
    if classes > 1:
        sources.build(recipe("digits_finetune", data).data.source)
    return classes


def run(
    workdir: pathlib.Path, data: str | None, classes: int, arg: str = ""
) -> dict[str, dict]:
    """Trains everything that `workdir` does not hold yet; stage -> its evaluation."""
    tokenizer, encoder = workdir / "tokenizer", workdir / "pretrain"
    results = {"tokenizer": train(recipe("digits_tokenizer", data, arg), tokenizer)}
    config = recipe("digits_pretrain", data, arg)
    config.task.target.checkpoint = str(tokenizer)
    results["pretrain"] = train(config, encoder)
    if classes < 2:
        return results
    for seed in SEEDS:
        for start, init_from in (("pretrained", str(encoder)), ("scratch", "")):
            config = recipe("digits_finetune", data, arg)
            config.seed = config.data.source.subset_seed = seed
            config.init_from = init_from
            config.task.classes = classes
            name = f"finetune_{start}_{seed}"
            results[name] = train(config, workdir / name, quiet=True)
            print(f"{name}: top-1 {results[name]['eval/top1']:.1%}", flush=True)
    return results


def table(results: dict[str, dict], data: str | None) -> Table:
    """What each stage reached, beside what it must beat."""
    labels = recipe("digits_finetune", data).data.source.labels_per_class
    tokens, masked = results["tokenizer"], results["pretrain"]
    rows = Table(
        "measured on held-out images", "value", "beside", title=data or "digits"
    )
    rows.add_row(
        "tokenizer: reconstruction",
        f"PSNR {tokens['eval/psnr']:.1f} dB",
        f"{tokens['eval/codes_used']:.0%} of the codes in use",
    )
    rows.add_row(
        "pre-training: masked tokens predicted",
        f"{masked['eval/accuracy']:.1%}",
        f"unigram {masked['eval/unigram_accuracy']:.1%}, "
        f"chance {masked['eval/chance_accuracy']:.1%}",
    )
    for start in ("pretrained", "scratch"):
        names = [name for name in results if name.startswith(f"finetune_{start}")]
        if names:
            top1 = [results[name]["eval/top1"] for name in names]
            rows.add_row(
                f"top-1 with {labels} labels a class, {start}",
                f"{statistics.mean(top1):.1%}",
                "seeds " + ", ".join(f"{value:.1%}" for value in top1),
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="a folder of images, or a tar of one")
    parser.add_argument("--workdir", type=pathlib.Path)
    parser.add_argument("--tiny", action="store_true", help="a few steps of everything")
    args = parser.parse_args()
    name = pathlib.Path(args.data).resolve().name if args.data else "quickstart"
    arg = "tiny" if args.tiny else ""
    workdir = args.workdir or pathlib.Path("runs", name + arg)
    logging.set_verbosity(logging.ERROR)  # Orbax tells much
    begun = time.perf_counter()
    # The fine-tuning runs are one program with six inputs: compile it once.
    jax.config.update("jax_compilation_cache_dir", str(workdir.resolve() / "xla_cache"))
    try:
        classes = count_classes(args.data)
        results = run(workdir, args.data, classes, arg)
    except Preempted as stop:
        print(f"{stop}: run ./launch/quickstart.sh again", file=sys.stderr)
        sys.exit(PREEMPTED)
    except ValueError as error:
        sys.exit(f"error: {error}")
    console = Console(width=100)
    console.print(table(results, args.data))
    if classes < 2:
        console.print("no class folders: fine-tuning was left out")
    print(
        f"{time.perf_counter() - begun:.0f} s. In {workdir}/*/: pictures/*.png, "
        f"tensorboard/, metrics.jsonl, checkpoints/"
    )


if __name__ == "__main__":
    main()
