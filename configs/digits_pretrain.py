"""BEiT pre-training on handwritten digits: predict the tokens of hidden patches.

python -m beit_jax.train --config configs/digits_pretrain.py --workdir runs/pretrain
On the scenes of digits_segment.py: `…_pretrain.py:scenes`.
Source: BEiT (arXiv:2106.08254): its learning rate, decay, clipping, 40 % masked.
Result: 30.8 % of the masked tokens of the test split (most frequent token: 9.3 %).
"""

from beit_jax import config as c

SCENES = {"name": "digit_scenes", "size": 64}
VARIANTS = {
    "scenes": {
        "task__target__checkpoint": "runs/scenes/tokenizer",
        "model__image_size": 64,
        "data__source": SCENES | {"split": "train"},
        "data__eval_source": SCENES | {"split": "test", "num_examples": 256},
        "data__frame__min_scale": 0.3,
        "data__mask__max_patches": 25,
    }
}


def get_config(arg: str = ""):
    config = c.new(
        steps=1000,
        task={
            "name": "pretrain",
            "target": {"name": "tokens", "checkpoint": "runs/tokenizer"},
        },
        model={
            "image_size": 32,
            "patch_size": 8,
            "dim": 96,
            "depth": 4,
            "heads": 4,
            "rel_pos_bias": "shared",
            "layer_scale": 0.1,
        },
        data={
            "batch_size": 128,
            "source": {"name": "digits", "split": "train"},
            "eval_source": {"name": "digits", "split": "test"},
            "frame": {"name": "random_resized", "min_scale": 0.6},
            "augment": {
                "flip": False,
                "token_interpolation": "bicubic",
            },
            "mask": {"name": "blockwise", "max_patches": 6},
        },
        optim={"lr": 1.5e-3, "warmup_steps": 80},
        log={"every_steps": 50},
        checkpoint={"every_steps": 100},
    )
    if c.choose(config, arg, VARIANTS):
        config = c.smaller(config, task__target__checkpoint="untrained")
    return config
