"""Intermediate fine-tuning on ImageNet-22k at 224 px, Base or `large`.

python -m beit_jax.train --config configs/beit_intermediate.py \
    --workdir runs/beit_base_intermediate
Between pre-training (beit_pretrain.py:in22k) and beit_finetune.py:intermediate.
Source: README of the official code; its runs were clipped in name only, for DeepSpeed
ignored `--clip_grad`: --config.optim.clip_norm=0 is what they did.
Published, % top-1 of ImageNet-1k in the end: 85.2 at 224 px (without this step 83.7),
`large` 87.40 (86.0). Result: not run here.
"""

from beit_jax import config as c

LARGE = {
    "init_from": "runs/beit_large_in22k",
    "model__variant": "large",
    "data__batch_size": 2048,
    "optim__lr": 2e-3,
    "optim__layer_decay": 0.75,
    "optim__clip_norm": 1.0,
}
VARIANTS = {"large": LARGE}


def get_config(arg: str = ""):
    config = c.new(
        epochs=90.0,
        dtype="bfloat16",
        init_from="runs/beit_base_in22k",
        task={"name": "classify", "classes": 21841},
        model={
            "image_size": 224,
            "variant": "base",
            "preset": "released",
            "drop_path": 0.2,
            "pixels": "half",
        },
        data={
            "batch_size": 4096,
            "source": {"name": "folder", "path": "data/imagenet22k"},
            "eval_frame": {"name": "centre", "crop_pct": 224 / 256},
            "augment": {
                "randaugment": "rand-m9-mstd0.5-inc1",
                "erase": 0.25,
            },
        },
        optim={"lr": 3e-3, "min_lr": 1e-6, "warmup_epochs": 5.0, "layer_decay": 0.65},
    )
    if c.choose(config, arg, VARIANTS):
        changes = c.SMALL_ENCODER | {"init_from": "", "task__classes": 4}
        config = c.synthetic(c.smaller(config, **changes))
    return config
