"""Every recipe of configs/ fits together; most train and can be measured again."""

import importlib.util
import json
import pathlib

import flax.linen as nn
import jax
import pytest
from ml_collections import ConfigDict
from PIL import Image

from beit_jax import config as c
from beit_jax import sharding, tasks
from beit_jax.checkpoints import frozen as frozen_lib
from beit_jax.data import pipeline
from beit_jax.evaluate import evaluate
from beit_jax.run import state
from beit_jax.run.checks import metric_names
from beit_jax.run.evaluator import Evaluation, evaluations
from beit_jax.run.whole import whole
from beit_jax.tasks.base import Context
from beit_jax.train import train
from tests import tiny

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
RECIPES = sorted(CONFIGS.glob("*.py"))
# Those that test_quickstart.py trains.
QUICKSTART = ["photos_tokenizer", "photos_pretrain", "photos_finetune"]
# Those whose training is that of another recipe, but for numbers.
TWINS = ["beit_cifar100", "beit_intermediate", "digits_probe", "caltech20_tokenizer"]
TWINS += ["digits_tokenizer", "digits_pretrain", "digits_finetune"]
TWINS += ["beit_pretrain", "cifar10_finetune", "cifar10_dvae"]
TWINS += ["simmim_pretrain", "maskfeat_pretrain", "mae_finetune", "mae_probe"]
TWINS += ["features_pretrain", "mae_pretrain"]
TWINS += ["beit2_tokenizer", "beit2_pretrain", "digits2_tokenizer"]
TWINS += ["digits2_pretrain"]
TWINS += ["dalle_dvae", "caltech20_pretrain", "caltech20_finetune", "caltech20_probe"]
TWINS += ["camvid_tokenizer", "camvid_pretrain", "camvid_segment", "digits_segment"]
TWINS += ["cityscapes_segment", "ade20k_segment"]
TRAINED = [p.stem for p in RECIPES if p.stem not in {*QUICKSTART, *TWINS}]
PICTURES = {
    "tokenizer": ["reconstruction"],
    "pretrain": ["prediction"],
    "classify": ["attention", "confusion", "reliability"],
    "probe": [],
    "segment": ["confusion", "segments"],
}


def load(stem: str):
    """The module configs/STEM.py."""
    spec = importlib.util.spec_from_file_location(stem, CONFIGS / f"{stem}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def at(config, path: str):
    """A key of a config as plain data, None where there is none."""
    for key in path.split("."):
        config = config.get(key) if config is not None else None
    return config.to_dict() if isinstance(config, ConfigDict) else config


@pytest.mark.parametrize("stem", TRAINED)
def test_a_recipe_trains_and_can_be_measured_again(stem, tmp_path):
    config = load(stem).get_config("tiny")
    metrics = train(config, tmp_path, quiet=True)

    assert metrics and all(name.startswith("eval/") for name in metrics)
    saved = c.from_dict(json.loads((tmp_path / "config.json").read_text()))
    assert saved == whole(config)
    assert tiny.saved_steps(tmp_path)[-1] == config.steps
    assert evaluate(tmp_path) == metrics
    assert train(config, tmp_path, quiet=True) == metrics  # complete: trains no more
    losses = tiny.lines(tmp_path)
    assert losses[-1]["step"] == config.steps
    assert all(isinstance(line["train/loss"], float) for line in losses)
    assert list((tmp_path / "tensorboard").iterdir())
    pictures = sorted((tmp_path / "pictures").glob("*.png"))
    assert [p.name for p in pictures] == [
        f"{name}_{config.steps:07d}.png" for name in PICTURES[config.task.name]
    ]
    for picture in pictures:
        Image.open(picture).verify()


@pytest.mark.parametrize("stem", TWINS)
def test_a_recipe_much_like_another_fits_together(stem):
    """Its data come, and its steps can be traced; only to compile them takes long."""
    config = load(stem).get_config("tiny")
    task = tasks.build(config)
    stream = pipeline.train_stream(config.data, task.train_spec, config.seed)
    mesh = sharding.make_mesh(config.mesh)
    batch = sharding.put_batch(next(stream.batches()), mesh)
    have = nn.unbox(state.abstract_variables(task, batch))
    frozen = frozen_lib.shapes(task.frozen)
    ctx = Context(0, jax.random.key(0), have["model_state"], frozen)
    loss, _ = jax.eval_shape(task.train_loss, have["params"], batch, ctx)
    assert loss.shape == ()
    tests = evaluations(config, task) or [Evaluation("eval", stream, 0)]
    names = {f"eval/{name}" for name in task.headline}
    assert names <= {*metric_names(task, tests)}


# Names behind a published recipe's file -> what must follow, as in RECIPES.md.
LARGE = {"model.variant": "large"}
PRETRAINING = {
    "epochs": 800,
    "data.batch_size": 2048,
    "data.augment.jitter": 0.4,
    "data.augment.token_interpolation": "lanczos",
    "data.mask": {"name": "blockwise", "max_patches": 75},
    "optim.lr": 1.5e-3,
    "optim.min_lr": 1e-5,
    "optim.warmup_epochs": 10,
    "optim.weight_decay": 0.05,
    "optim.clip_norm": 3.0,
    "model.drop_path": 0.1,
    "model.pixels": "imagenet",
    "model.preset": "released",
    "task.target.image_size": 112,
}
IN22K = {"epochs": 150, "optim.warmup_steps": 10_000, "model.pixels": "half"}
FINETUNING = {
    "data.augment.randaugment": "rand-m9-mstd0.5-inc1",
    "data.augment.erase": 0.25,
    "data.augment.mixup": 0.8,
    "data.augment.cutmix": 1.0,
    "data.augment.repeats": 1,
    "data.augment.jitter": 0.0,
    "data.frame.min_scale": 0.08,
    "data.eval_frame.crop_pct": 0.875,
    "data.batch_size": 1024,
    "optim.lr": 4e-3,
    "optim.min_lr": 1e-6,
    "optim.layer_decay": 0.65,
    "optim.warmup_epochs": 20,
    "epochs": 100,
    "optim.weight_decay": 0.05,
    "optim.clip_norm": 0.0,
    "model.drop_path": 0.1,
    "model.pixels": "half",
    "model.preset": "released",
    "task.classes": 1000,
}
LARGE_FINETUNING = LARGE | {
    "optim.lr": 1e-3,
    "optim.layer_decay": 0.75,
    "optim.warmup_epochs": 5,
    "epochs": 50,
    "model.drop_path": 0.2,
}
AFTER_22K = {  # its weight decay of 1e-8 is none
    "init_fresh": "head",
    "data.batch_size": 512,
    "data.augment.mixup": 0.0,
    "data.augment.cutmix": 0.0,
    "optim.lr": 2e-5,
    "optim.layer_decay": 0.85,
    "optim.warmup_epochs": 5,
    "epochs": 30,
    "optim.weight_decay": 0.0,
}
LARGE_AFTER_22K = LARGE | AFTER_22K
LARGE_AFTER_22K |= {"optim.layer_decay": 0.9, "model.drop_path": 0.4}
AT_384 = {"model.image_size": 384, "data.eval_frame.crop_pct": 1.0}
PLAIN = {"model.preset": "paper_plain", "model.pixels": "imagenet"}
CIFAR100 = {
    "data.batch_size": 512,
    "epochs": 150,
    "optim.weight_decay": 0.3,
    "data.augment.erase": 0.0,
    "data.augment.repeats": 3,
    "task.classes": 100,
}
IN_BETWEEN = {
    "data.batch_size": 4096,
    "data.augment.mixup": 0.0,
    "data.augment.cutmix": 0.0,
    "optim.lr": 3e-3,
    "optim.warmup_epochs": 5,
    "epochs": 90,
    "optim.clip_norm": 3.0,
    "model.drop_path": 0.2,
    "task.classes": 21841,
}
LARGE_IN_BETWEEN = LARGE | IN_BETWEEN
LARGE_IN_BETWEEN |= {"data.batch_size": 2048, "optim.lr": 2e-3}
LARGE_IN_BETWEEN |= {"optim.layer_decay": 0.75, "optim.clip_norm": 1.0}
PROBING = {
    "task.features": "concat",
    "data.batch_size": 1024,
    "data.eval_frame.crop_pct": 0.875,
    "optim.name": "adamw",
    "optim.lr": 4e-3,
    "optim.min_lr": 0.0,
    "optim.warmup_epochs": 0,
    "optim.weight_decay": 1e-4,
    "optim.clip_norm": 0.0,
    "epochs": 100,
}
MAE_PROBING = {
    "task.features": "cls",
    "task.norm": "batch",
    "data.batch_size": 16384,
    "optim.name": "lars",
    "optim.lr": 0.1 * 16384 / 256,
    "optim.warmup_epochs": 10,
    "optim.weight_decay": 0.0,
    "epochs": 90,
}
SEGMENTING = {
    "steps": 160_000,
    "data.batch_size": 16,
    "data.frame.long": 2048,
    "data.frame.short": 512,
    "data.frame.cat_max_ratio": 0.75,
    "task.head": {"name": "upernet", "channels": 768},
    "task.inference.stride": (341, 341),
    "optim.lr": 3e-5,
    "optim.min_lr": 0.0,
    "optim.layer_decay": 0.9,
    "optim.schedule": {"name": "poly"},
    "optim.warmup_steps": 1500,
    "optim.weight_decay": 0.05,
    "optim.clip_norm": 0.0,
    "model.drop_path": 0.1,
    "model.pixels": "imagenet",
}
AT_640 = {"data.frame.long": 2560, "data.frame.short": 640}
AT_640 |= {"task.inference.stride": (426, 426), "model.image_size": 640}
LARGE_SEGMENTING = LARGE | {"task.head": {"name": "upernet", "channels": 1024}}
LARGE_SEGMENTING |= {"optim.lr": 2e-5, "optim.layer_decay": 0.95}
LARGE_SEGMENTING |= {"model.drop_path": 0.2}
SIMMIM = {
    "epochs": 800,
    "task.target": {"name": "pixels", "loss": "l1", "pixels": "imagenet"},
    "data.batch_size": 2048,
    "data.frame.min_scale": 0.67,
    "data.mask": {"name": "random", "unit": 2, "max_patches": 30 * 4},
    "optim.lr": 1e-4 * 2048 / 512,
    "optim.schedule": {"name": "steps", "milestones": (700 * 625,)},
    "optim.warmup_lr": 5e-7 * 2048 / 512,
    "optim.warmup_epochs": 10,
    "optim.clip_norm": 5.0,
    "model.drop_path": 0.1,
    "model.preset": "released",
}
MAE = {
    "epochs": 800,
    "task.target": {"name": "pixels", "normalize": True, "pixels": "imagenet"},
    "task.head": {"name": "decoder", "dim": 512, "depth": 8, "heads": 16},
    "data.batch_size": 4096,
    "data.frame.min_scale": 0.2,
    "data.augment.jitter": 0.0,
    "data.mask": {"name": "random", "max_patches": 147},
    "optim.lr": 1.5e-4 * 4096 / 256,
    "optim.min_lr": 0.0,
    "optim.warmup_epochs": 40,
    "optim.b2": 0.95,
    "optim.weight_decay": 0.05,
    "optim.clip_norm": 0.0,
    "model.abs_pos_embed": "sincos",
    "model.init_as": "mae",
}
MAE_FINETUNING = {
    "epochs": 100,
    "data.batch_size": 1024,
    "optim.lr": 5e-4 * 1024 / 256,
    "optim.layer_decay": 0.65,
    "optim.warmup_epochs": 5,
    "optim.min_lr": 1e-6,
    "model.drop_path": 0.1,
    "task.pool": "mean",
    "data.augment.mixup": 0.8,
}
MASKFEAT = {
    "epochs": 300,
    "task.target": {"name": "hog", "gaussian": False},
    "data.batch_size": 2048,
    "data.frame.min_scale": 0.5,
    "data.augment.jitter": 0.0,
    "data.mask": {"name": "blockwise", "max_patches": 78, "min_block": 15},
    "optim.lr": 2e-4 * 2048 / 256,
    "optim.min_lr": 1e-6,
    "optim.warmup_lr": 1e-6,
    "optim.warmup_epochs": 30,
    "optim.clip_norm": 0.02,
    "model.preset": "paper_plain",
}
VQKD = {
    "epochs": 100,
    "data.batch_size": 512,
    "data.frame.min_scale": 0.08,
    "optim.lr": 2e-4,
    "optim.min_lr": 1e-5,
    "optim.warmup_epochs": 10,
    "optim.weight_decay": 1e-4,
    "optim.b1": 0.9,
    "optim.b2": 0.99,
    "model.pixels": "half",
    "model.teacher_dim": 512,
}
V2 = PRETRAINING | {
    "epochs": 1600,
    "data.augment.token_interpolation": "bicubic",
    "data.frame.min_scale": 0.2,
    "data.mask": {"name": "blockwise", "max_patches": 75, "exact": True},
    "optim.b2": 0.999,
    "task.head": {"name": "aggregation", "early": 9, "layers": 2},
}
del V2["task.target.image_size"]
V2_FINETUNING = {
    "optim.lr": 5e-4,
    "optim.layer_decay": 0.6,
    "model.drop_path": 0.2,
    "model.pixels": "imagenet",
}
V2_LARGE = V2_FINETUNING | {"optim.lr": 2e-4, "optim.layer_decay": 0.8}
PUBLISHED = {
    "ade20k_segment": {
        "": SEGMENTING,
        "640": SEGMENTING | AT_640,
        "pretrained": SEGMENTING | {"optim.lr": 7e-4, "optim.layer_decay": 0.65},
        "large": SEGMENTING | LARGE_SEGMENTING,
        "large,640": SEGMENTING
        | LARGE_SEGMENTING
        | AT_640
        | {"optim.accumulate": 2, "optim.warmup_steps": 3000},
        "v2": SEGMENTING
        | {"optim.lr": 5e-5, "optim.layer_decay": 0.75, "model.drop_path": 0.15},
        "large,v2_in22k": SEGMENTING
        | LARGE_SEGMENTING
        | {"optim.lr": 3e-5, "optim.layer_decay": 0.9},
    },
    "simmim_pretrain": {"": SIMMIM},
    "mae_pretrain": {
        "": MAE,
        "large,1600ep": MAE | LARGE | {"epochs": 1600},
        "raw": {"task.target.normalize": False},
    },
    "mae_finetune": {
        "": MAE_FINETUNING,
        "large": MAE_FINETUNING
        | LARGE
        | {
            "epochs": 50,
            "optim.lr": 1e-3 * 1024 / 256,
            "optim.layer_decay": 0.75,
            "model.drop_path": 0.2,
        },
        "simmim": {
            "data.batch_size": 2048,
            "optim.lr": 1.25e-3 * 2048 / 512,
            "optim.min_lr": 2.5e-7 * 2048 / 512,
            "optim.warmup_epochs": 20,
            "optim.layer_decay": 0.65,
            "model.rel_pos_bias": "per_block",
        },
        "maskfeat": {"data.batch_size": 2048, "optim.lr": 2e-3 * 2048 / 512},
        "large,maskfeat": {
            "epochs": 50,
            "optim.lr": 1e-3 * 2048 / 512,
            "optim.layer_decay": 0.75,
            "optim.warmup_epochs": 5,
            "model.drop_path": 0.1,
        },
    },
    "mae_probe": {"": MAE_PROBING, "large": MAE_PROBING | {"epochs": 50}},
    "maskfeat_pretrain": {
        "": MASKFEAT,
        "large,1600ep": MASKFEAT | LARGE | {"epochs": 1600},
        "mmpretrain": {"task.target.gaussian": True},
    },
    "beit_pretrain": {
        "": PRETRAINING,
        "300ep,plain": PRETRAINING | {"epochs": 300, "model.preset": "paper_plain"},
        "layer_scale": PRETRAINING
        | {"model.preset": "paper_plain", "model.layer_scale": 0.1},
        "large": PRETRAINING | LARGE | {"optim.clip_norm": 1.0},
        "in22k": PRETRAINING | IN22K,
        "large,in22k": PRETRAINING | LARGE | IN22K | {"optim.clip_norm": 1.0},
        "no_blockwise": PRETRAINING
        | {"data.mask": {"name": "random", "max_patches": 75}},
        "recover_all": PRETRAINING | {"task.predict": "all"},
        "no_masking": PRETRAINING
        | {"task.predict": "all", "data.mask": {"name": "none", "max_patches": 75}},
        "pixels,no_blockwise": {
            "task.target": {"name": "pixels"},
            "data.mask": {"name": "random", "max_patches": 75},
        },
    },
    "beit2_tokenizer": {
        "": VQKD,
        "decoder1": VQKD | {"model.teacher_blocks": 1},
        "dino": VQKD | {"model.teacher_dim": 768},
    },
    "beit2_pretrain": {
        "": V2,
        "300ep": V2 | {"epochs": 300, "optim.b2": 0.98, "model.drop_path": 0.0},
        "large": V2
        | LARGE
        | {"task.head": {"name": "aggregation", "early": 21, "layers": 2}},
        "unshared": {"task.head.shared": False},
    },
    "beit_finetune": {
        "": FINETUNING,
        "v2": FINETUNING | V2_FINETUNING,
        "v2_300ep": FINETUNING
        | V2_FINETUNING
        | {"optim.layer_decay": 0.65, "model.drop_path": 0.1},
        "large,v2": FINETUNING | LARGE_FINETUNING | V2_LARGE,
        "large,v2_300ep": FINETUNING | LARGE_FINETUNING | V2_LARGE | {"optim.lr": 5e-4},
        "large": FINETUNING | LARGE_FINETUNING,
        "intermediate": FINETUNING | AFTER_22K,
        "intermediate,384": FINETUNING | AFTER_22K | AT_384,
        "large,intermediate": FINETUNING | LARGE_AFTER_22K,
        "large,intermediate,512": FINETUNING
        | LARGE_AFTER_22K
        | AT_384
        | {"model.image_size": 512},
        "plain": FINETUNING | PLAIN | {"data.augment.repeats": 3},
        "large,plain": FINETUNING | LARGE_FINETUNING | PLAIN | {"optim.lr": 2e-3},
    },
    "beit_intermediate": {
        "": FINETUNING | IN_BETWEEN,
        "large": FINETUNING | LARGE_IN_BETWEEN,
    },
    "beit_cifar100": {
        "": FINETUNING | PLAIN | CIFAR100,
        "intermediate": FINETUNING | PLAIN | CIFAR100 | {"init_fresh": "head"},
    },
    "beit_linear_probe": {
        "": PROBING,
        "paper": PROBING | {"task.features": "mean", "epochs": 50},
        "mae": PROBING | MAE_PROBING,
        "large,mae": PROBING | MAE_PROBING | {"epochs": 50},
    },
}


@pytest.mark.parametrize("stem", PUBLISHED)
def test_published_numbers_are_behind_a_recipes_names(stem):
    make = load(stem).get_config
    for names, wanted in PUBLISHED[stem].items():
        config = make(names)
        c.check(config)
        have = {path: at(config, path) for path in wanted}
        assert have == wanted, f"{stem}:{names}"


@pytest.mark.parametrize("stem", [path.stem for path in RECIPES])
def test_every_name_behind_a_recipe_builds(stem):
    recipe = load(stem)
    for names in getattr(recipe, "VARIANTS", ()):
        names = names.replace("+", ",")
        c.check(recipe.get_config(names))
        tasks.build(recipe.get_config(f"{names},tiny"))
    with pytest.raises(ValueError, match="argument 'nonsense' is unknown; .*tiny"):
        recipe.get_config("nonsense")


@pytest.mark.parametrize(
    "stem, names, message",
    [
        ("beit_pretrain", "300ep,in22k", "'in22k' wants epochs=150.0, '300ep' 300.0"),
        (
            "beit_pretrain",
            "no_masking,no_blockwise",
            "'no_blockwise' wants data.mask.name='random', 'no_masking' 'none'",
        ),
        ("beit_pretrain", "plain,layer_scale", "model.layer_scale=0.0, 'layer_scale'"),
        ("beit_finetune", "384,512", "'384' wants model.image_size=384, '512' 512"),
        ("beit_finetune", "plain,intermediate", "'intermediate' wants init_from="),
    ],
)
def test_names_that_contradict_each_other_are_refused(stem, names, message):
    with pytest.raises(ValueError, match=message):
        load(stem).get_config(names)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_in_full_is_a_valid_config(path):
    config = load(path.stem).get_config()
    c.check(config)
    plain = json.loads(config.to_json())
    assert json.loads(c.from_dict(plain).to_json()) == plain
