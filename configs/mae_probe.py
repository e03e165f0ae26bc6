"""MAE's linear probe on ImageNet-1k at 224 px: batch norm and LARS, on every block.

python -m beit_jax.train --config configs/mae_probe.py --workdir runs/mae_base_probe
Base, or `large`. MAE's published weights: --config.task.checkpoint=
mae_pretrain_vit_base.pth. Blocks are probed before the last norm; theirs is the last.
Source: FINETUNE.md of facebookresearch/mae; its rate of 0.1 is for 256 images.
Published, % top-1 (of the code; 1600 epochs): 67.8, `large` 76.0. Result: not run here.
"""

from beit_jax import config as c

IN1K = {"name": "tfds", "dataset": "imagenet2012"}
VARIANTS = {"large": {"task__checkpoint": "runs/mae_large", "epochs": 50.0}}


def get_config(arg: str = ""):
    config = c.new(
        epochs=90.0,
        dtype="bfloat16",
        task={
            "name": "probe",
            "checkpoint": "runs/mae_base",
            "classes": 1000,
            "features": "cls",
            "norm": "batch",
        },
        model={"image_size": 224, "pixels": "imagenet"},
        data={
            "batch_size": 16384,
            "source": IN1K | {"split": "train"},
            "eval_source": IN1K | {"split": "validation"},
            "eval_frame": {"name": "centre", "crop_pct": 224 / 256},
        },
        optim={
            "name": "lars",
            "lr": 6.4,
            "min_lr": 0.0,
            "warmup_epochs": 10.0,
            "weight_decay": 0.0,
            "clip_norm": 0.0,
        },
    )
    if c.choose(config, arg, VARIANTS):
        changes = {"task__classes": 4, "task__checkpoint": "untrained"}
        config = c.synthetic(c.smaller(config, **c.SMALL_ENCODER, **changes))
    return config
