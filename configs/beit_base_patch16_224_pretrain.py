"""BEiT-B/16 pre-training on ImageNet-1k at 224 px, and the ablations of table 4.

python -m beit_jax.train --config configs/beit_base_patch16_224_pretrain.py \
    --workdir runs/beit_base_patch16_224
An ablation's name behind the file's, `…_pretrain.py:pixels`, changes what table 4 says.
Source: `beit/run_beit_pretraining.py` and its README: the network of the released
weights; 300 epochs, as the ablations have. DALL-E's dVAE sees the view at 112 px.
Result: published 82.86 % top-1 after fine-tuning the plain network; not run here.
"""

from beit_jax import config as c

PIXELS = {
    "task__target": {"name": "pixels"},
    "data__augment__token_interpolation": "bicubic",  # the pixels that the input has
}
ABLATIONS = {
    "no_blockwise": {"data__mask__name": "random"},
    "pixels": PIXELS,
    "pixels_no_blockwise": PIXELS | {"data__mask__name": "random"},
    "recover_all": {"task__predict": "all"},
    "no_masking": {"task__predict": "all", "data__mask__name": "none"},
    "plain": {"model__preset": "paper_plain"},
}


def get_config(arg: str = ""):
    images = {"name": "tfds", "dataset": "imagenet2012"}
    config = c.new(
        epochs=300.0,
        dtype="bfloat16",
        task={
            "name": "pretrain",
            "target": {"name": "tokens", "checkpoint": "runs/dalle", "image_size": 112},
        },
        model={
            "image_size": 224,
            "variant": "base",
            "preset": "released",
            "drop_path": 0.1,
            "pixels": "imagenet",
        },
        data={
            "batch_size": 2048,
            "source": images | {"split": "train"},
            "eval_source": images | {"split": "validation"},
            "augment": {"jitter": 0.4},
            "mask": {"name": "blockwise", "max_patches": 75},
        },
        optim={"lr": 1.5e-3, "warmup_epochs": 10.0},
    )
    for name in filter(ABLATIONS.get, arg.split(",")):
        c.change(config, **ABLATIONS[name])
    if c.is_tiny(arg, ABLATIONS):
        config = c.smaller(c.synthetic(config))
        small = {"image_size": 32, "patch_size": 8, "variant": "tiny", "depth": 2}
        config.model.update(small)
        config.data.mask.max_patches = 6
        if config.task.target.name == "tokens":
            config.task.target = {"name": "tokens", "checkpoint": "untrained"}
    return config
