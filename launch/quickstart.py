"""The whole chain, small: tokenizer -> masked image modelling -> few-label fine-tuning.

Runs the three recipes configs/digits_*.py one after the other, or with --data
configs/photos_*.py on own images, to which sizes, codes, labels and steps are fitted;
the last one for three seeds, from the pre-trained encoder and from scratch. Prints what
came out.
"""

import argparse
import pathlib
import statistics
import sys

import jax
from absl import logging
from ml_collections import ConfigDict
from own_images import CONFIGS, Plan, plan
from rich.console import Console
from rich.table import Table

from beit_jax import config as config_lib
from beit_jax.command import PREEMPTED
from beit_jax.run.clock import total
from beit_jax.run.stop import Preempted
from beit_jax.run.writer import times
from beit_jax.train import train

SEEDS = (0, 1, 2)


def recipe(stage: str, own: Plan | None, arg: str = "") -> ConfigDict:
    """The recipe of a stage, fitted to own images if there are any."""
    name = f"photos_{stage}" if own else f"digits_{stage}"
    config = config_lib.load(CONFIGS / f"{name}.py", arg)
    if own:
        own.fit(config, stage, steps=not arg)
    return config


def run(workdir: pathlib.Path, own: Plan | None, arg: str = "") -> dict[str, dict]:
    """Trains everything that `workdir` does not hold yet; stage -> its evaluation."""
    tokenizer, encoder = workdir / "tokenizer", workdir / "pretrain"
    results = {"tokenizer": train(recipe("tokenizer", own, arg), tokenizer)}
    config = recipe("pretrain", own, arg)
    config.task.target.checkpoint = str(tokenizer)
    results["pretrain"] = train(config, encoder)
    if own and not own.classes:
        return results
    for seed in SEEDS:
        for start, init_from in (("pretrained", str(encoder)), ("scratch", "")):
            config = recipe("finetune", own, arg)
            config.seed = config.data.source.subset_seed = seed
            config.init_from = init_from
            name = f"finetune_{start}_{seed}"
            results[name] = train(config, workdir / name, quiet=True)
            print(f"{name}: top-1 {results[name]['eval/top1']:.1%}", flush=True)
    return results


def table(results: dict[str, dict], own: Plan | None, title: str) -> Table:
    """What each stage reached, beside what it must beat."""
    config = recipe("finetune", own)
    labels, size = config.data.source.labels_per_class, config.model.image_size
    tokens, masked = results["tokenizer"], results["pretrain"]
    rows = Table(
        f"measured on {masked['eval/examples']:.0f} held-out images of {size} px",
        "value",
        "beside",
        title=title,
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
                mean_and_deviation(top1),
                f"chance {1 / config.task.classes:.1%}, seeds "
                + ", ".join(f"{value:.1%}" for value in top1),
            )
    return rows


def mean_and_deviation(values: list[float]) -> str:
    """The deviation is that of the seeds; a single one has none."""
    mean = f"{100 * statistics.mean(values):.1f}"
    if len(values) == 1:
        return f"{mean} %"
    return f"{mean} ± {100 * statistics.stdev(values):.1f} %"


def seconds(workdir: pathlib.Path, results: dict[str, dict]) -> float:
    """What all runs have taken, over all starts."""
    return sum(total(times(workdir / stage)[-1]) for stage in results)


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
    # The fine-tuning runs are one program with six inputs: compile it once.
    jax.config.update("jax_compilation_cache_dir", str(workdir.resolve() / "xla_cache"))
    try:
        own = plan(args.data, workdir / "images") if args.data else None
        if own:
            print(f"{args.data}: {own.told()}", flush=True)
        results = run(workdir, own, arg)
    except Preempted as stop:
        print(f"{stop}: run ./launch/quickstart.sh again", file=sys.stderr)
        sys.exit(PREEMPTED)
    except ValueError as error:
        sys.exit(f"error: {error}")
    console = Console(width=112)
    console.print(table(results, own, args.data or "digits"))
    if own and not own.classes:
        console.print("no class folders: fine-tuning was left out")
    print(
        f"{seconds(workdir, results):.0f} s in all, over all starts. In {workdir}/*/: "
        "pictures/*.png, tensorboard/, metrics.jsonl, checkpoints/"
    )


if __name__ == "__main__":
    main()
