"""Fine-tuning on 100 labelled CIFAR-10 images a class, from cifar10_pretrain.

python -m beit_jax.train --config configs/cifar10_finetune.py \
    --workdir runs/cifar10/finetune
From scratch: --config.init_from= ; all labels: --config.data.source.labels_per_class=0
Where the images are to lie: see cifar10_tokenizer.py.
Source: BEiT's fine-tuning (mean pooling, per-block position bias, layer decay).
Result: 39.6 % top-1 (seeds 40.1, 39.5, 39.2), from scratch 33.6 % (33.0, 34.5, 33.4).
"""

from beit_jax import config as c


def get_config(arg: str = ""):
    config = c.new(
        steps=300,
        init_from="runs/cifar10/pretrain",
        task={"name": "classify", "classes": 10},
        model={
            "image_size": 32,
            "patch_size": 8,
            "dim": 128,
            "depth": 4,
            "heads": 4,
            "rel_pos_bias": "per_block",
            "init_as": "pretrain",  # so that from scratch differs in nothing else
            "drop_path": 0.1,
        },
        data={
            "batch_size": 100,
            "source": {
                "name": "folder",
                "path": "data/cifar10_train.tar.gz",
                "labels_per_class": 100,
            },
            "eval_source": {"name": "folder", "path": "data/cifar10_test.tar.gz"},
            "augment": {"min_scale": 0.35},
        },
        optim={"lr": 1e-3, "min_lr": 1e-6, "warmup_steps": 30, "layer_decay": 0.75},
        log={"every_steps": 50},
    )
    if c.is_tiny(arg):
        config = c.smaller(c.synthetic(config), init_from="")
    return config
