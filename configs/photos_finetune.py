"""Fine-tuning on the labels of own photos in class folders, from photos_pretrain.

python -m beit_jax.train --config configs/photos_finetune.py --config.task.classes C \
    --config.data.source.path DIR --config.data.eval_source.path DIR \
    --workdir runs/photos/finetune
From scratch: --config.init_from= ; few labels: --config.data.source.labels_per_class N
Source: BEiT's fine-tuning: mean pooling, per-block position bias.
Result: by the quickstart on 550 photos in 10 classes of Caltech-101 (every other one of
Caltech-20: bonsai, chandelier, … laptop), 367 to train on, 18 labels each: 46.8 % top-1
on 183 (seeds 45.9, 48.1, 46.4), from scratch 32.1 % (29.0, 34.4, 32.8). Nothing was
tuned on them.
"""

from beit_jax import config as c

IMAGES = {"name": "folder", "path": "data/photos"}


def get_config(arg: str = ""):
    config = c.new(
        steps=500,
        init_from="runs/photos/pretrain",
        task={"name": "classify", "classes": 10},
        model={
            "image_size": 112,
            "patch_size": 16,
            "dim": 128,
            "depth": 4,
            "heads": 4,
            "rel_pos_bias": "per_block",
            "init_as": "pretrain",  # so that from scratch differs in nothing else
            "drop_path": 0.1,
        },
        data={
            "batch_size": 32,
            "source": IMAGES | {"part": "train/3", "labels_per_class": 10},
            "eval_source": IMAGES | {"part": "test/3"},
            "frame": {"name": "random_resized", "min_scale": 0.3},
            "eval_frame": {"name": "centre", "crop_pct": 224 / 256},
            "augment": {"jitter": 0.4, "jitter_on": "device"},
            "decoded_cache_gib": 1.0,
        },
        optim={"lr": 1e-3, "min_lr": 1e-6, "warmup_steps": 50},
        log={"every_steps": 50},
    )
    if c.is_tiny(arg):
        config = c.smaller(c.synthetic(config), init_from="")
    return config
