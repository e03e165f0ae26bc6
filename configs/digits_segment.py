"""Segmentation of handwritten digits over photographs: composited, with no download.

python -m beit_jax.train --config configs/digits_tokenizer.py:scenes \
    --workdir runs/scenes/tokenizer
python -m beit_jax.train --config configs/digits_pretrain.py:scenes \
    --workdir runs/scenes/pretrain
python -m beit_jax.train --config configs/digits_segment.py \
    --workdir runs/scenes/segment
From scratch: --config.init_from= ; fewer scenes: --config.data.source.num_examples=N
Source: BEiT's UPerNet (four taps, auxiliary head), narrow, for minutes on two cores.
Result: from scratch 400 steps tell background alone (mIoU 8.2 %, three seeds): too few,
--config.steps=N gives more. The tokenizer reaches 18.7 dB, all 64 codes in use.
"""

from beit_jax import config as c

SCENES = {"name": "digit_scenes", "size": 64}


def get_config(arg: str = ""):
    config = c.new(
        steps=400,
        init_from="runs/scenes/pretrain",
        task={
            "name": "segment",
            "classes": 11,
            "head": {"name": "upernet", "channels": 32, "auxiliary": 32},
            "taps": (0, 1, 2, 3),
            "losses": {"cross_entropy": {}, "dice": {"weight": 1.0}},
            "inference": {"mode": "whole", "room": (64, 64)},
        },
        model={
            "image_size": 64,
            "patch_size": 8,
            "dim": 96,
            "depth": 4,
            "heads": 4,
            "rel_pos_bias": "per_block",
            "init_as": "pretrain",  # so that from scratch differs in nothing else
            "layer_scale": 0.1,
            "drop_path": 0.1,
        },
        data={
            "batch_size": 16,
            "source": SCENES | {"split": "train", "num_examples": 256},
            "eval_source": SCENES | {"split": "test", "num_examples": 256},
            "frame": {"name": "random_resized", "min_scale": 0.5},
            "augment": {"flip": False, "interpolation": "bilinear"},
        },
        optim={"lr": 1e-3, "min_lr": 1e-6, "warmup_steps": 40},
    )
    return c.smaller(config, init_from="") if c.is_tiny(arg) else config
