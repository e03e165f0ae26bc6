"""MaskFeat pre-training at 224 px: gradient histograms (HOG) of hidden patches.

python -m beit_jax.train --config configs/maskfeat_pretrain.py \
    --workdir runs/maskfeat_base
A plain ViT on ImageNet-1k for 300 epochs, Base or `large`; `1600ep`: the paper's.
`mmpretrain`: histograms with a Gaussian window, as in that port. Then
mae_finetune.py:maskfeat.
Source: arXiv:2112.09133; projects/maskfeat/ of facebookresearch/SlowFast, whose rate
of 2e-4 is for 256 images and here for the batch. No colour may be jittered.
Published, % top-1 of ImageNet-1k after fine-tuning: `1600ep` 84.0, `large,1600ep` 85.7;
mmpretrain's, 300 epochs 83.4. Result: not run here.
"""

from beit_jax import config as c

IN1K = {"name": "tfds", "dataset": "imagenet2012"}
VARIANTS = {
    "large": {"model__variant": "large"},
    "1600ep": {"epochs": 1600.0},
    "mmpretrain": {"task__target__gaussian": True},
}


def get_config(arg: str = ""):
    config = c.new(
        epochs=300.0,
        dtype="bfloat16",
        task={"name": "pretrain", "target": {"name": "hog", "gaussian": False}},
        model={
            "image_size": 224,
            "variant": "base",
            "preset": "paper_plain",
            "pixels": "imagenet",
        },
        data={
            "batch_size": 2048,
            "source": IN1K | {"split": "train"},
            "eval_source": IN1K | {"split": "validation"},
            "frame": {"name": "random_resized", "min_scale": 0.5},
            "augment": {"token_interpolation": "bicubic"},  # the pixels of the input
            "mask": {"name": "blockwise", "max_patches": 78, "min_block": 15},
        },
        optim={
            "lr": 1.6e-3,
            "min_lr": 1e-6,
            "warmup_lr": 1e-6,
            "warmup_epochs": 30.0,
            "clip_norm": 0.02,
        },
    )
    if c.choose(config, arg, VARIANTS):
        changes = {"data__mask__max_patches": 6, "data__mask__min_block": 2}
        config = c.synthetic(c.smaller(config, **c.SMALL_ENCODER, **changes))
    return config
