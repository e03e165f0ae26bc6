"""Fine-tuning on 10 labelled images a class of Caltech-20, from caltech20_pretrain.

python -m beit_jax.train --config configs/caltech20_finetune.py \
    --workdir runs/caltech20/finetune
From scratch: --config.init_from= ; all 36 a class: `…finetune.py:all_labels`
Where the images are to lie: see caltech20_tokenizer.py.
Source: BEiT's fine-tuning: RandAugment, erasing, Mixup, CutMix, mean pooling, per-block
position bias, layer decay.
Result: docs/experiment.md.
"""

from beit_jax import config as c

IMAGES = {"name": "folder", "path": "data/caltech20a.tar"}
VARIANTS = {"all_labels": {"data__source__labels_per_class": 0}}


def get_config(arg: str = ""):
    config = c.new(
        steps=300,
        init_from="runs/caltech20/pretrain",
        task={"name": "classify", "classes": 20},
        model={
            "image_size": 96,
            "patch_size": 16,
            "dim": 96,
            "depth": 4,
            "heads": 3,
            "rel_pos_bias": "per_block",
            "init_as": "pretrain",  # so that from scratch differs in nothing else
            "drop_path": 0.1,
        },
        data={
            "batch_size": 64,
            "source": IMAGES
            | {"split": "train", "part": "train", "labels_per_class": 10},
            "eval_source": IMAGES | {"split": "val"},
            "frame": {"name": "random_resized", "min_scale": 0.2},
            "eval_frame": {"name": "centre", "crop_pct": 224 / 256},
            "augment": {
                "randaugment": "rand-m9-mstd0.5-inc1",
                "erase": 0.25,
                "mixup": 0.8,
                "cutmix": 1.0,
            },
            "decoded_cache_gib": 1.0,
        },
        optim={"lr": 1e-3, "min_lr": 1e-6, "warmup_steps": 30, "layer_decay": 0.75},
        log={"every_steps": 50},
    )
    if c.choose(config, arg, VARIANTS):
        config = c.smaller(c.synthetic(config), init_from="")
    return config
