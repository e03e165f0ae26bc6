"""Semantic segmentation of ADE20K, Base or Large: UPerNet on BEiT.

python -m beit_jax.train --config configs/ade20k_segment.py --workdir runs/ade20k
python -m beit_jax.train --config configs/ade20k_segment.py:large,640 --workdir RUN
Names go behind the file's. Without any: BEiT-B at 512 px after beit_intermediate.py.
`640`: at 640 px. `pretrained`: after beit_pretrain.py alone. `views`: measured at six
scales, mirrored too. `v2`, `v2_in22k`: of BEiT v2 after pre-training on ImageNet-1k
or intermediate fine-tuning on ImageNet-22k; name the checkpoint by init_from.
data/ADEChallengeData2016 has images/ and annotations/ with training/ and validation/.
Source: semantic_segmentation/configs of the official code (UPerNet, 160,000 steps of
16 images); its poly schedule counts the warm-up, ours begins after it.
Published, mIoU, one scale and `views`:
              640          large,640    v2     v2_in22k  large,v2  large,v2_in22k
              53.6, 54.2   56.7, 57.0   53.1   53.5      56.7      57.5
Result: not run here.
"""

from beit_jax import config as c

ADE = {"name": "ade20k", "path": "data/ADEChallengeData2016"}
LARGE = {"model__variant": "large", "task__head__channels": 1024}
VARIANTS = {
    "640": {
        "model__image_size": 640,
        "data__frame__long": 2560,
        "data__frame__short": 640,
        "task__inference__short": 640,
        "task__inference__long": 2560,
        "task__inference__stride": (426, 426),
    },
    "large": LARGE
    | {
        "init_from": "runs/beit_large_intermediate",
        "model__drop_path": 0.2,
        "optim__lr": 2e-5,
        "optim__layer_decay": 0.95,
    },
    "large+640": {"optim__accumulate": 2, "optim__warmup_steps": 3000},
    "pretrained": {
        "init_from": "runs/beit_base_in22k",
        "optim__lr": 7e-4,
        "optim__layer_decay": 0.65,
    },
    "views": {
        "task__inference__scales": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
        "task__inference__flip": True,
    },
    "v2": {
        "init_from": "runs/beit2_base",
        "model__drop_path": 0.15,
        "optim__lr": 5e-5,
        "optim__layer_decay": 0.75,
    },
    "v2_in22k": {
        "init_from": "runs/beit2_base_intermediate",
        "model__drop_path": 0.15,
        "optim__lr": 5e-5,
        "optim__layer_decay": 0.85,
    },
    "large+v2": {
        "init_from": "runs/beit2_large",
        "model__drop_path": 0.2,
        "optim__lr": 4e-5,
        "optim__layer_decay": 0.9,
    },
    "large+v2_in22k": {
        "init_from": "runs/beit2_large_intermediate",
        "model__drop_path": 0.2,
        "optim__lr": 3e-5,
        "optim__layer_decay": 0.9,
    },
}


def get_config(arg: str = ""):
    config = c.new(
        steps=160_000,
        dtype="bfloat16",
        init_from="runs/beit_base_intermediate",
        init_fresh="neck,decode_head,auxiliary_head",
        task={
            "name": "segment",
            "classes": 150,
            "head": {"name": "upernet", "channels": 768},
            "losses": {"cross_entropy": {"average": "all"}},
            "inference": {
                "mode": "slide",
                "stride": (341, 341),
                "short": 512,
                "long": 2048,
                "scales": (1.0,),
                "flip": False,
                "filter": "linear",
            },
        },
        model={
            "image_size": 512,
            "variant": "base",
            "preset": "released",
            "pixels": "imagenet",
            "drop_path": 0.1,
        },
        data={
            "batch_size": 16,
            "source": ADE | {"split": "train"},
            "eval_source": ADE | {"split": "val"},
            "frame": {
                "name": "scaled",
                "long": 2048,
                "short": 512,
                "min_scale": 0.5,
                "max_scale": 2.0,
                "fill": (124, 116, 104),
                "cat_max_ratio": 0.75,
            },
            "augment": {"interpolation": "bilinear", "photometric": True},
        },
        optim={
            "lr": 3e-5,
            "min_lr": 0.0,
            "schedule": {"name": "poly"},
            "warmup_steps": 1500,
            "layer_decay": 0.9,
            "clip_norm": 0.0,
        },
        eval={"every_steps": 16_000},
        checkpoint={"best": "eval/miou", "every_steps": 2000},
    )
    if c.choose(config, arg, VARIANTS):
        config = c.synthetic(c.smaller(config, **c.SMALL_SEGMENTER))
    return config
