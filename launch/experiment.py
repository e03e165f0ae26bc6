"""What pre-training is worth, measured: five ways to start, few and all labels.

`python launch/experiment.py cifar10 --images DIR` trains one small ViT from scratch and
after pre-training on visual tokens, on normalised pixels, with random masks, and with
intermediate fine-tuning on another labelled set, three seeds each, and probes the
frozen encoders. It goes on where it was stopped, and prints the table so far.

Fine-tuning's learning rate and layer decay are chosen for each arm and number of labels
by seed 0 on a validation split (every tenth training image, which no run trains on);
the test split is looked at once, with what was chosen.
"""

import argparse
import json
import os
import pathlib
import signal
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import experiment_tables
import jobs
from jobs import Job, Results
from ml_collections import ConfigDict

from beit_jax import config as config_lib
from beit_jax.command import PREEMPTED
from beit_jax.evaluate import evaluate
from beit_jax.knn import knn
from beit_jax.run.stop import Preempted
from beit_jax.train import train

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
SEEDS = (0, 1, 2)
# Arm -> the argument of the pre-training recipe; from scratch there is none.
PRETRAINED = {"tokens": "", "pixels": "pixels", "random_masks": "random_masks"}
ARMS = ("scratch", *PRETRAINED, "intermediate")
LABELS = {"all": "all_labels", "few": ""}  # -> argument of the fine-tuning recipe
# Fine-tuning's (learning rate, layer decay) to choose from.
SETTINGS = {"gentle": (1e-3, 0.75), "even": (1e-3, 1.0), "bold": (2e-3, 1.0)}
OTHER = {"cifar10": "caltech20", "caltech20": "cifar10"}  # for intermediate fine-tuning


class Study(NamedTuple):
    """Where an experiment's images are, where its runs go, and how large it is."""

    data: str
    images: str
    folder: pathlib.Path
    size: str = ""  # of all stages, an argument of their recipes; "": as they are

    def recipe(self, stage: str, arg: str = "") -> ConfigDict:
        """The recipe of a stage, on the images that are here."""
        names = ",".join(filter(None, (arg, self.size)))
        config = config_lib.load(CONFIGS / f"{self.data}_{stage}.py", names)
        for source in (config.data.source, config.data.eval_source):
            source.path = self.find(pathlib.Path(source.path).name)
        config.log.every_steps = 50
        config.checkpoint.keep = 1
        return config

    def other(self) -> "Study":
        """The data set of intermediate fine-tuning."""
        return self._replace(data=OTHER[self.data], size="")

    def find(self, file: str) -> str:
        """Raises ValueError unless there is one such file among the images."""
        found = sorted(pathlib.Path(self.images).rglob(file))
        if len(found) != 1:
            raise ValueError(
                f"{file} must lie once in {self.images} or below, and lies there "
                f"{len(found)} times; name its folder with --images"
            )
        return str(found[0])

    def start(self, arm: str, seed: int) -> pathlib.Path:
        """The run whose encoder an arm fine-tunes or probes."""
        stage = f"pretrain/{arm}" if arm in PRETRAINED else arm
        return self.folder / stage / str(seed)

    def train(self, name: str, config: ConfigDict) -> dict[str, float]:
        return train(config, self.folder / name, quiet=True)


def tokenizer(study: Study, results: Results) -> dict[str, float]:
    return study.train("tokenizer", study.recipe("tokenizer"))


def pretrain(study: Study, results: Results, arm: str, seed: int) -> dict[str, float]:
    config = study.recipe("pretrain", PRETRAINED[arm])
    config.seed = seed
    if config.task.target.name == "tokens":
        config.task.target.checkpoint = str(study.folder / "tokenizer")
    return study.train(f"pretrain/{arm}/{seed}", config)


def intermediate(study: Study, results: Results, seed: int) -> dict[str, float]:
    """Fine-tunes on all labels of the other data set, at this one's image size.

    For as many steps as afterwards on few labels.
    """
    config = study.recipe("finetune")
    other = study.other().recipe("finetune", "all_labels")
    config.seed = seed
    config.init_from = str(study.start("tokens", seed))
    config.task.classes = other.task.classes
    config.data.source = other.data.source
    config.data.eval_source = other.data.eval_source
    return study.train(f"intermediate/{seed}", config)


def finetune_config(
    study: Study, arm: str, labels: str, setting: str, seed: int
) -> ConfigDict:
    """The run of one arm; it is evaluated on the validation split."""
    config = study.recipe("finetune", LABELS[labels])
    config.seed = config.data.source.subset_seed = seed
    config.optim.lr, config.optim.layer_decay = SETTINGS[setting]
    config.init_from = "" if arm == "scratch" else str(study.start(arm, seed))
    config.init_fresh = "head" if arm == "intermediate" else ""  # of other classes
    validation = config.data.source.copy_and_resolve_references()
    validation.update({"part": "test", "labels_per_class": 0})
    config.data.eval_source = validation
    return config


def finetune(
    study: Study, results: Results, arm: str, labels: str, setting: str, seed: int
) -> dict[str, float]:
    setting = setting or chosen(results, arm, labels)
    config = finetune_config(study, arm, labels, setting, seed)
    return study.train(f"finetune/{arm}/{labels}/{setting}/{seed}", config)


def test(
    study: Study, results: Results, arm: str, labels: str, seed: int
) -> dict[str, float]:
    """The chosen run on the test split."""
    setting = chosen(results, arm, labels)
    config = finetune_config(study, arm, labels, setting, seed)
    config.data.eval_source = study.recipe("finetune").data.eval_source
    path = study.folder / f"finetune/{arm}/{labels}/{setting}/{seed}"
    return evaluate(path, config)


def chosen(results: Results, arm: str, labels: str) -> str:
    """The setting whose run with seed 0 is the best on the validation split."""
    return max(
        SETTINGS, key=lambda s: results[f"finetune/{arm}/{labels}/{s}"]["eval/top1"]
    )


def probe(study: Study, results: Results, arm: str, seed: int) -> dict[str, float]:
    """Linear classifiers on every block of the frozen encoder, on all labels.

    From scratch: on random weights, the same for all seeds.
    """
    config = study.recipe("probe")
    config.seed = seed
    config.task.checkpoint = "untrained"
    if arm != "scratch":
        config.task.checkpoint = str(study.start(arm, seed))
        config.model = {"image_size": config.model.image_size}  # it says the rest
    return study.train(f"probe/{arm}/{seed}", config)


def neighbours(study: Study, results: Results, arm: str, seed: int) -> dict[str, Any]:
    """The votes of the 20 nearest training images, on the frozen encoder's features.

    From scratch: on random weights, others for each seed.
    """
    config = study.recipe("finetune", "all_labels")
    config.seed = seed
    start = "untrained" if arm == "scratch" else study.start(arm, seed)
    return knn(start, config, study.folder / f"knn/{arm}/{seed}")


def plan(arms: tuple[str, ...]) -> list[Job]:
    """All runs of some arms, in the order in which they are wanted."""
    made = [Job("tokenizer", (), tokenizer, {})]

    def add(name, needs, function, **arguments):
        made.append(Job(name, needs, function, arguments))

    for seed in SEEDS:
        for arm in PRETRAINED:
            if arm not in arms and not (arm == "tokens" and "intermediate" in arms):
                continue
            needs = () if arm == "pixels" else ("tokenizer",)
            add(f"pretrain/{arm}/{seed}", needs, pretrain, arm=arm, seed=seed)
        if "intermediate" in arms:
            before = f"pretrain/tokens/{seed}"
            add(f"intermediate/{seed}", (before,), intermediate, seed=seed)
        for arm in arms:
            add_finetuning(add, arm, "all", seed)
    for seed in SEEDS:
        for arm in arms:
            add_finetuning(add, arm, "few", seed)
    for seed in SEEDS:
        for arm in arms:
            run = {"arm": arm, "seed": seed}
            add(f"probe/{arm}/{seed}", started(arm, seed), probe, **run)
            add(f"knn/{arm}/{seed}", started(arm, seed), neighbours, **run)
    return made


def started(arm: str, seed: int) -> tuple[str, ...]:
    """The job whose encoder an arm needs; none for random weights."""
    if arm in PRETRAINED:
        return (f"pretrain/{arm}/{seed}",)
    return (f"intermediate/{seed}",) if arm == "intermediate" else ()


def add_finetuning(add: Callable, arm: str, labels: str, seed: int) -> None:
    """Seed 0 tries every setting, the others run with the one chosen; then the test."""
    start = started(arm, seed)
    run = {"arm": arm, "labels": labels, "seed": seed}
    tried = tuple(f"finetune/{arm}/{labels}/{setting}" for setting in SETTINGS)
    done = tried
    if seed == SEEDS[0]:
        for name, setting in zip(tried, SETTINGS, strict=True):
            add(name, start, finetune, setting=setting, **run)
    else:
        done = (f"finetune/{arm}/{labels}/{seed}",)
        add(done[0], start + tried, finetune, setting="", **run)
    add(f"test/{arm}/{labels}/{seed}", done, test, **run)


def check_plan(study: Study) -> None:
    """Holds what is planned against what the folder's results were made with.

    Raises:
      ValueError: a recipe or setting has changed since.
    """
    plan = {"settings": SETTINGS}
    for stage in ("tokenizer", "pretrain", "finetune", "probe"):
        config = study.recipe(stage)
        for source in (config.data.source, config.data.eval_source):
            source.path = pathlib.Path(source.path).name  # wherever it lies now
        plan[stage] = config.to_dict()
    now = {name: json.loads(json.dumps(value)) for name, value in plan.items()}
    file = study.folder / "plan.json"
    if not file.exists():
        file.write_text(json.dumps(now, indent=1))
    before = json.loads(file.read_text())
    if changed := [name for name in now if now[name] != before.get(name)]:
        raise ValueError(
            f"{file} tells of another {', '.join(changed)}: results of the two must "
            "not be mixed; use another --workdir"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=list(OTHER))
    parser.add_argument("--images", default="data", help="where the archives lie")
    parser.add_argument("--workdir", type=pathlib.Path)
    parser.add_argument("--workers", type=int, default=CORES, help="runs at once")
    parser.add_argument(
        "--large", action="store_true", help="cifar10: for a GPU, ten times the steps"
    )
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    args = parser.parse_args()
    arms = tuple(arm for arm in ARMS if arm in args.arms)
    size = "large" if args.large else ""
    name = f"{args.data}_{size}" if size else args.data
    folder = args.workdir or pathlib.Path("runs/experiment", name)
    folder.mkdir(parents=True, exist_ok=True)
    study = Study(args.data, args.images, folder, size)
    signal.signal(signal.SIGTERM, jobs.stop)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, jobs.stop)
    stopped = False
    try:
        study.other().recipe("finetune")  # its images are needed, too
        check_plan(study)
        jobs.run_all(study, plan(arms), args.workers)
    except (Preempted, KeyboardInterrupt):
        stopped = True
    except ValueError as error:
        sys.exit(f"error: {error} {' '.join(getattr(error, '__notes__', ()))}")
    experiment_tables.show(jobs.read(folder), arms, LABELS)
    if stopped:
        print("stopped: the same command goes on from here", file=sys.stderr)
        sys.exit(PREEMPTED)


if __name__ == "__main__":
    main()
