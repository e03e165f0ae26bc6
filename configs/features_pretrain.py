"""Pre-training at 224 px on a teacher's features of the hidden patches: MVP's form.

python -m beit_jax.train --config configs/features_pretrain.py \
    --workdir runs/features_base
BEiT's Base network and masks on ImageNet-1k for 300 epochs; the teacher is CLIP's B/16
image tower, in hf:openai/clip-vit-base-patch16. `dino`, `own`: another one. `eva`: an
MAE whose decoder predicts them, `milan`: of all patches, both as mmpretrain has them
(and without MILAN's choice of what to hide). Their loss is twice ours.
Source: arXiv:2203.05175 (its paper has no code; what it does not tell is BEiT's);
configs/eva and configs/milan of open-mmlab/mmpretrain.
Published, % top-1 of ImageNet-1k after fine-tuning: none 84.4, `eva` 83.70,
`milan` 85.30. Result: not run here.
"""

from beit_jax import config as c

IN1K = {"name": "tfds", "dataset": "imagenet2012"}
DECODING = {
    "epochs": 400.0,
    "task__head": {"name": "decoder", "dim": 512, "depth": 8, "heads": 16},
    "model__preset": "",
    "model__abs_pos_embed": "sincos",
    "model__rel_pos_bias": "none",
    "model__layer_scale": 0.0,
    "model__init_as": "mae",
    "data__batch_size": 4096,
    "data__mask": {"name": "random", "max_patches": 147},
    "data__augment__jitter": 0.0,
    "optim__lr": 2.4e-3,
    "optim__min_lr": 0.0,
    "optim__warmup_epochs": 40.0,
    "optim__b2": 0.95,
    "optim__clip_norm": 0.0,
}
VARIANTS = {
    "dino": {"task__target__teacher__checkpoint": "hf:facebook/dino-vitb16"},
    "own": {"task__target__teacher__checkpoint": "runs/beit_base"},
    "eva": DECODING,
    "milan": DECODING | {"task__predict": "all"},
}


def get_config(arg: str = ""):
    clip = {"name": "encoder", "checkpoint": "hf:openai/clip-vit-base-patch16"}
    config = c.new(
        epochs=300.0,
        dtype="bfloat16",
        task={
            "name": "pretrain",
            "predict": "masked",
            "target": {"name": "features", "teacher": clip},
            "head": {"name": "tokens"},
        },
        model={
            "image_size": 224,
            "variant": "base",
            "preset": "released",
            "pixels": "imagenet",
        },
        data={
            "batch_size": 2048,
            "source": IN1K | {"split": "train"},
            "eval_source": IN1K | {"split": "validation"},
            "augment": {"jitter": 0.4, "token_interpolation": "bicubic"},
            "mask": {"name": "blockwise", "max_patches": 75},
        },
        optim={"lr": 1.5e-3, "warmup_epochs": 10.0},
    )
    if c.choose(config, arg, VARIANTS):
        config = c.synthetic(c.smaller(config, **c.SMALL_ENCODER))
        config.task.target.teacher.checkpoint = "untrained"
        config.data.mask.max_patches = 6
    return config
