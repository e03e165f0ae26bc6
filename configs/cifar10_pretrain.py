"""BEiT pre-training on CIFAR-10 at 32 px with the tokens of cifar10_tokenizer.

python -m beit_jax.train --config configs/cifar10_pretrain.py \
    --workdir runs/cifar10/pretrain
On normalised pixels or with random masks: `…_pretrain.py:pixels`, `:random_masks`.
Larger, for a GPU: `…_pretrain.py:large`, on the tokens of `…_tokenizer.py:large`.
Where the images are to lie: see cifar10_tokenizer.py.
Source: BEiT (arXiv:2106.08254): its learning rate, decay, clipping, 40 % masked.
Result: 9.4 % of the masked tokens of the test split (most frequent token: 0.7 %).
"""

from beit_jax import config as c

IMAGES = {"name": "folder", "path": "data/cifar10_train.tar.gz"}
TEST = {"name": "folder", "path": "data/cifar10_test.tar.gz"}
VARIANTS = {
    "pixels": {"task__target": {"name": "pixels", "normalize": True}},
    "random_masks": {"data__mask__name": "random"},
    "large": {
        "model__patch_size": 4,
        "model__dim": 384,
        "model__depth": 12,
        "model__heads": 6,
        "data__mask__max_patches": 24,
        "steps": 20000,
        "optim__warmup_steps": 2000,
    },
}


def get_config(arg: str = ""):
    config = c.new(
        steps=2000,
        task={
            "name": "pretrain",
            "target": {"name": "tokens", "checkpoint": "runs/cifar10/tokenizer"},
        },
        model={
            "image_size": 32,
            "patch_size": 8,
            "dim": 96,
            "depth": 4,
            "heads": 3,
            "rel_pos_bias": "shared",
        },
        data={
            "batch_size": 128,
            "source": IMAGES | {"part": "train"},
            "eval_source": TEST,
            "frame": {"name": "random_resized", "min_scale": 0.35},
            "augment": {"token_interpolation": "bicubic"},
            "mask": {"name": "blockwise", "max_patches": 6},
        },
        optim={"lr": 1.5e-3, "warmup_steps": 200},
        log={"every_steps": 100},
    )
    if c.choose(config, arg, VARIANTS):
        config = c.smaller(c.synthetic(config))
        if config.task.target.name == "tokens":
            config.task.target.checkpoint = "untrained"
    return config
