"""A linear classifier on every block of frozen BEiT, on ImageNet-1k at 224 px.

python -m beit_jax.train --config configs/beit_linear_probe.py --workdir runs/beit_probe
Of another encoder: --config.task.checkpoint=RUN. top1 is that of the best block, which
for BEiT is one in the middle; the last is bad (docs/signal.md).
Source: `beit/run_linear_eval.py` of the official code, whose rate falls epoch by epoch,
ours step by step. `paper`: as the paper tells it. `mae`: MAE's, batch norm and LARS.
Published, % top-1: Base 56.7 (block 9), Large 73.5 (block 14). Result: not run here.
"""

from beit_jax import config as c

IN1K = {"name": "tfds", "dataset": "imagenet2012"}
VARIANTS = {
    "large": {"task__checkpoint": "runs/beit_large_plain"},
    "paper": {"task__features": "mean", "epochs": 50.0},
    "mae": {
        "task__features": "cls",
        "task__norm": "batch",
        "epochs": 90.0,
        "data__batch_size": 16384,
        "optim__name": "lars",
        "optim__lr": 6.4,  # 0.1 for each 256 images of a batch
        "optim__warmup_epochs": 10.0,
        "optim__weight_decay": 0.0,
    },
    "large+mae": {"epochs": 50.0},
}


def get_config(arg: str = ""):
    config = c.new(
        epochs=100.0,
        dtype="bfloat16",
        task={
            "name": "probe",
            "checkpoint": "runs/beit_base_plain",
            "classes": 1000,
            "features": "concat",
        },
        model={"image_size": 224, "pixels": "imagenet"},
        data={
            "batch_size": 1024,
            "source": IN1K | {"split": "train"},
            "eval_source": IN1K | {"split": "validation"},
            "eval_frame": {"name": "centre", "crop_pct": 224 / 256},
        },
        optim={"lr": 4e-3, "min_lr": 0.0, "weight_decay": 1e-4, "clip_norm": 0.0},
    )
    if c.choose(config, arg, VARIANTS):
        changes = {"task__classes": 4, "task__checkpoint": "untrained"}
        config = c.synthetic(c.smaller(config, **c.SMALL_ENCODER, **changes))
    return config
