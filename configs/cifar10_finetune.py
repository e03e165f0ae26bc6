"""Fine-tuning on 100 labelled CIFAR-10 images a class, from cifar10_pretrain.

python -m beit_jax.train --config configs/cifar10_finetune.py \
    --workdir runs/cifar10/finetune
From scratch: --config.init_from= ; all labels, 600 steps: `…_finetune.py:all_labels`
Larger, for a GPU: `…_finetune.py:large`, from `…_pretrain.py:large`.
Where the images are to lie: see cifar10_tokenizer.py.
Source: BEiT's fine-tuning (mean pooling, per-block position bias, layer decay).
Result: docs/experiment.md, with the learning rates and decays chosen there.
"""

from beit_jax import config as c

IMAGES = {"name": "folder", "path": "data/cifar10_train.tar.gz"}
TEST = {"name": "folder", "path": "data/cifar10_test.tar.gz"}
VARIANTS = {
    "all_labels": {"data__source__labels_per_class": 0, "steps": 600},
    "large": {
        "model__patch_size": 4,
        "model__dim": 384,
        "model__depth": 12,
        "model__heads": 6,
        "steps": 3000,
        "optim__warmup_steps": 300,
    },
    "all_labels+large": {"steps": 6000},
}


def get_config(arg: str = ""):
    config = c.new(
        steps=300,
        init_from="runs/cifar10/pretrain",
        task={"name": "classify", "classes": 10},
        model={
            "image_size": 32,
            "patch_size": 8,
            "dim": 96,
            "depth": 4,
            "heads": 3,
            "rel_pos_bias": "per_block",
            "init_as": "pretrain",  # so that from scratch differs in nothing else
            "drop_path": 0.1,
        },
        data={
            "batch_size": 128,
            "source": IMAGES | {"part": "train", "labels_per_class": 100},
            "eval_source": TEST,
            "frame": {"name": "random_resized", "min_scale": 0.35},
        },
        optim={"lr": 1e-3, "min_lr": 1e-6, "warmup_steps": 30, "layer_decay": 0.75},
        log={"every_steps": 50},
    )
    if c.choose(config, arg, VARIANTS):
        config = c.smaller(c.synthetic(config), init_from="")
    return config
