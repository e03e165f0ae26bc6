"""BEiT pre-training at 224 px, Base or Large, and the ablations of tables 4 and 5.

python -m beit_jax.train --config configs/beit_pretrain.py:plain,300ep \
    --workdir runs/beit_base_plain_300ep
Names go behind the file's, as far as they agree. Without any: Base on ImageNet-1k for
800 epochs, the network of the released weights. The tokenizer, DALL-E's dVAE in
runs/dalle, sees each view at 112 px.
Source: `beit/run_beit_pretraining.py` and its README; Large: the paper's table 12.
Published, % top-1 of ImageNet-1k after fine-tuning (`none`: no name):
table 4 (`300ep,plain` and)  none 82.86, no_blockwise 82.77, pixels 81.04,
    pixels,no_blockwise 80.50, recover_all 82.59, no_masking 81.67
table 5 (`300ep` and)  plain 82.86, layer_scale 83.00, none 83.22
longer  plain 83.2, large,plain 85.2, in22k 83.7, large,in22k 86.0
Result: not run here.
"""

from beit_jax import config as c

IN1K = {"name": "tfds", "dataset": "imagenet2012"}
VARIANTS = {
    "large": {"model__variant": "large", "optim__clip_norm": 1.0},
    "in22k": {
        "epochs": 150.0,
        "optim__warmup_steps": 10_000,
        "data__source": {"name": "folder", "path": "data/imagenet22k"},
        "model__pixels": "half",
    },
    "300ep": {"epochs": 300.0},
    "no_blockwise": {"data__mask__name": "random"},
    "pixels": {
        "task__target": {"name": "pixels"},
        "data__augment__token_interpolation": "bicubic",  # the pixels of the input
    },
    "recover_all": {"task__predict": "all"},
    "no_masking": {"task__predict": "all", "data__mask__name": "none"},
    "plain": {"model__preset": "paper_plain", "model__layer_scale": 0.0},
    "layer_scale": {"model__preset": "paper_plain", "model__layer_scale": 0.1},
}


def get_config(arg: str = ""):
    tokens = {"name": "tokens", "checkpoint": "runs/dalle", "image_size": 112}
    config = c.new(
        epochs=800.0,
        dtype="bfloat16",
        task={"name": "pretrain", "target": tokens},
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
            "augment": {"jitter": 0.4},
            "mask": {"name": "blockwise", "max_patches": 75},
        },
        optim={"lr": 1.5e-3, "warmup_epochs": 10.0},
    )
    if c.choose(config, arg, VARIANTS):
        changes = c.SMALL_ENCODER | {"data__mask__max_patches": 6}
        config = c.synthetic(c.smaller(config, **changes))
        if config.task.target.name == "tokens":
            config.task.target = {"name": "tokens", "checkpoint": "untrained"}
    return config
