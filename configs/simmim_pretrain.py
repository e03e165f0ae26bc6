"""SimMIM pre-training at 224 px: the raw pixels of hidden squares of 32x32.

python -m beit_jax.train --config configs/simmim_pretrain.py --workdir runs/simmim_base
BEiT's Base network on ImageNet-1k for 800 epochs. `100ep`: the shorter run of the
official code, which it tells of Swin alone. Then mae_finetune.py:simmim.
Source: arXiv:2111.09886 and configs/vit_base__800ep/ of microsoft/SimMIM; its rates are
for 512 images and here for the batch. There [CLS] decays, too. 30 of the 49 squares
are hidden.
Published, % top-1 of ImageNet-1k after fine-tuning: 83.8. Result: not run here.
"""

from beit_jax import config as c

IN1K = {"name": "tfds", "dataset": "imagenet2012"}
EPOCH = 1_281_167 // 2048  # optimizer steps
VARIANTS = {
    "100ep": {
        "epochs": 100.0,
        "optim__lr": 8e-4,
        "optim__min_lr": 4e-5,
        "optim__schedule": {"name": "cosine"},
    },
}


def get_config(arg: str = ""):
    pixels = {"name": "pixels", "loss": "l1", "pixels": "imagenet"}
    config = c.new(
        epochs=800.0,
        dtype="bfloat16",
        task={"name": "pretrain", "target": pixels},
        model={
            "image_size": 224,
            "variant": "base",
            "preset": "released",
            "drop_path": 0.1,
            "pixels": "imagenet",
        },
        data={
            "batch_size": 2048,
            "source": IN1K | {"split": "train"},
            "eval_source": IN1K | {"split": "validation"},
            "frame": {"name": "random_resized", "min_scale": 0.67},
            "augment": {
                "interpolation": "bilinear",
                "token_interpolation": "bilinear",  # the pixels of the input
            },
            "mask": {"name": "random", "unit": 2, "max_patches": 120},
        },
        optim={
            "lr": 4e-4,
            "schedule": {"name": "steps", "milestones": (700 * EPOCH,)},
            "warmup_lr": 2e-6,
            "warmup_epochs": 10.0,
            "clip_norm": 5.0,
        },
    )
    if c.choose(config, arg, VARIANTS):
        changes = c.SMALL_ENCODER | {"data__mask__max_patches": 8}
        config = c.synthetic(c.smaller(config, **changes))
    return config
