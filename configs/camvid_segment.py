"""Segmentation of CamVid's street scenes, fine-tuned from camvid_pretrain.

python -m beit_jax.train --config configs/camvid_segment.py \
    --workdir runs/camvid/segment
From scratch: --config.init_from= ; another head: `…_segment.py:setr_pup`.
data/camvid has images/, masks/ and the lists train.txt, val.txt, test.txt.
Source: BEiT's UPerNet (four taps, auxiliary head, layer decay), narrow, on frames at
192x256 px, measured on labels of 360x480.
Result: mIoU 29.7 % on the test split, 74.6 % of its pixels; from scratch 29.3 and
74.1 % (one seed; docs/segmentation.md).
"""

from beit_jax import config as c

CAMVID = {"name": "camvid", "path": "data/camvid"}
VARIANTS = {"setr_pup": {"task__head": {"name": "setr_pup", "channels": 64}}}


def get_config(arg: str = ""):
    config = c.new(
        steps=1600,
        init_from="runs/camvid/pretrain",
        task={
            "name": "segment",
            "classes": 11,
            "head": {"name": "upernet", "channels": 32, "auxiliary": 32},
            "taps": (0, 1, 2, 3),
            "losses": {"cross_entropy": {"average": "valid"}},
            "inference": {"mode": "whole", "room": (360, 480)},
        },
        model={
            "image_size": (192, 256),
            "patch_size": 16,
            "dim": 128,
            "depth": 4,
            "heads": 4,
            "rel_pos_bias": "per_block",
            "init_as": "pretrain",  # so that from scratch differs in nothing else
            "drop_path": 0.1,
        },
        data={
            "batch_size": 4,
            "source": CAMVID | {"split": "train"},
            "eval_source": CAMVID | {"split": "test"},
            "frame": {
                "name": "scaled",
                "min_scale": 1.0,
                "max_scale": 1.5,
                "cat_max_ratio": 0.75,
            },
            "augment": {
                "interpolation": "bilinear",
                "jitter": 0.4,
                "jitter_on": "device",
            },
            "decoded_cache_gib": 1.0,
        },
        optim={"lr": 1e-3, "min_lr": 1e-6, "warmup_steps": 100, "layer_decay": 0.8},
        log={"every_steps": 100},
    )
    if c.choose(config, arg, VARIANTS):
        changes = c.SMALL_SEGMENTER | {"model__image_size": (32, 32)}
        config = c.synthetic(c.smaller(config, **changes))
    return config
