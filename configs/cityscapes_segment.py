"""Semantic segmentation of Cityscapes at 768 px: SETR or UPerNet on BEiT-B.

python -m beit_jax.train --config configs/cityscapes_segment.py \
    --workdir runs/cityscapes
Names go behind the file's: `naive`, `mla` for SETR's other heads, `upernet`.
data/cityscapes has leftImg8bit/ and gtFine/ with train/ and val/.
Source: SETR (arXiv:2012.15840) for crops of 768 px, windows 512 px apart, heads and
80,000 steps of 8 images; BEiT's paper for the learning rate and its decay by layers.
Published for SETR on a supervised ViT-L, mIoU, one scale: PUP 79.2, naive 78.1, MLA
77.0; none is published for BEiT. Result: not run here.
"""

from beit_jax import config as c

CITY = {"name": "cityscapes", "path": "data/cityscapes"}
VARIANTS = {
    "naive": {"task__head__name": "setr_naive"},
    "mla": {"task__head__name": "setr_mla"},
    "upernet": {"task__head__name": "upernet"},
}


def get_config(arg: str = ""):
    config = c.new(
        steps=80_000,
        dtype="bfloat16",
        init_from="runs/beit_base_intermediate",
        init_fresh="neck,decode_head,auxiliary_head",
        task={
            "name": "segment",
            "classes": 19,
            "head": {"name": "setr_pup", "channels": 256},
            "inference": {
                "mode": "slide",
                "room": (1024, 2048),
                "stride": (512, 512),
                "filter": "linear",
            },
        },
        model={
            "image_size": 768,
            "variant": "base",
            "preset": "released",
            "pixels": "imagenet",
            "drop_path": 0.1,
        },
        data={
            "batch_size": 8,
            "source": CITY | {"split": "train"},
            "eval_source": CITY | {"split": "val"},
            "frame": {
                "name": "scaled",
                "long": 2048,
                "short": 1024,
                "min_scale": 0.5,
                "max_scale": 2.0,
                "fill": (124, 116, 104),
                "cat_max_ratio": 0.75,
            },
            "augment": {"interpolation": "bilinear", "photometric": True},
        },
        optim={
            "lr": 1e-3,
            "min_lr": 0.0,
            "schedule": {"name": "poly"},
            "warmup_steps": 1500,
            "layer_decay": 0.65,
            "clip_norm": 0.0,
        },
        eval={"every_steps": 8000},
        checkpoint={"best": "eval/miou", "every_steps": 2000},
    )
    if c.choose(config, arg, VARIANTS):
        config = c.synthetic(c.smaller(config, **c.SMALL_SEGMENTER))
    return config
