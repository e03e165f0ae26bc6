"""BEiT pre-training on CIFAR-10 at 32 px with the tokens of cifar10_tokenizer.

python -m beit_jax.train --config configs/cifar10_pretrain.py \
    --workdir runs/cifar10/pretrain
Where the images are to lie: see cifar10_tokenizer.py.
Source: BEiT (arXiv:2106.08254): its learning rate, decay, clipping, 40 % masked.
Result: 11.9 % of the masked tokens of the test split (most frequent token: 0.5 %).
"""

from beit_jax import config as c


def get_config(arg: str = ""):
    config = c.new(
        steps=3000,
        task={
            "name": "pretrain",
            "target": {"name": "tokens", "checkpoint": "runs/cifar10/tokenizer"},
        },
        model={
            "image_size": 32,
            "patch_size": 8,
            "dim": 128,
            "depth": 4,
            "heads": 4,
            "rel_pos_bias": "shared",
        },
        data={
            "batch_size": 128,
            "source": {"name": "folder", "path": "data/cifar10_train.tar.gz"},
            "eval_source": {"name": "folder", "path": "data/cifar10_test.tar.gz"},
            "augment": {"min_scale": 0.35, "token_interpolation": "bicubic"},
            "mask": {"name": "blockwise", "max_patches": 6},
        },
        optim={"lr": 1.5e-3, "warmup_steps": 200},
        log={"every_steps": 100},
    )
    if c.is_tiny(arg):
        config = c.smaller(c.synthetic(config), task__target__checkpoint="untrained")
    return config
