"""MAE pre-training at 224 px: the encoder sees a quarter of the patches.

python -m beit_jax.train --config configs/mae_pretrain.py --workdir runs/mae_base
A plain ViT on ImageNet-1k for 800 epochs, Base or `large`; `1600ep`: longer. `raw`:
pixels as they are, not normalised by patch. Then mae_finetune.py and mae_probe.py.
Source: arXiv:2111.06377 and PRETRAIN.md of facebookresearch/mae, whose rate of 1.5e-4
is for 256 images and here for the batch. There [CLS] decays, too.
Published, % top-1 of ImageNet-1k after fine-tuning (FINETUNE.md): `1600ep` 83.66,
`large,1600ep` 85.95. Result: not run here.
"""

from beit_jax import config as c

IN1K = {"name": "tfds", "dataset": "imagenet2012"}
VARIANTS = {
    "large": {"model__variant": "large"},
    "1600ep": {"epochs": 1600.0},
    "raw": {"task__target__normalize": False},
}


def get_config(arg: str = ""):
    pixels = {"name": "pixels", "normalize": True, "pixels": "imagenet"}
    decoder = {"name": "decoder", "dim": 512, "depth": 8, "heads": 16}
    config = c.new(
        epochs=800.0,
        dtype="bfloat16",
        task={"name": "pretrain", "target": pixels, "head": decoder},
        model={
            "image_size": 224,
            "variant": "base",
            "abs_pos_embed": "sincos",
            "rel_pos_bias": "none",
            "layer_scale": 0.0,
            "init_as": "mae",
            "pixels": "imagenet",
        },
        data={
            "batch_size": 4096,
            "source": IN1K | {"split": "train"},
            "eval_source": IN1K | {"split": "validation"},
            "frame": {"name": "random_resized", "min_scale": 0.2},
            "augment": {"token_interpolation": "bicubic"},  # the pixels of the input
            "mask": {"name": "random", "max_patches": 147},
        },
        optim={
            "lr": 2.4e-3,
            "min_lr": 0.0,
            "warmup_epochs": 40.0,
            "b2": 0.95,
            "clip_norm": 0.0,
        },
    )
    if c.choose(config, arg, VARIANTS):
        changes = c.SMALL_ENCODER | {"task__head__dim": 64, "task__head__depth": 1}
        changes |= {"data__mask__max_patches": 12}
        config = c.synthetic(c.smaller(config, **changes))
    return config
