"""BEiT pre-training on own photos at 112 px with the tokens of photos_tokenizer.

python -m beit_jax.train --config configs/photos_pretrain.py \
    --config.data.source.path DIR --config.data.eval_source.path DIR \
    --workdir runs/photos/pretrain
Source: BEiT (arXiv:2106.08254): its views, colour jitter, learning rate, decay,
clipping, 40 % masked.
Result: 6.5 % of the masked tokens (most frequent token 1.5 %; see photos_finetune).
"""

from beit_jax import config as c

IMAGES = {"name": "folder", "path": "data/photos"}


def get_config(arg: str = ""):
    config = c.new(
        steps=2400,
        task={
            "name": "pretrain",
            "target": {"name": "tokens", "checkpoint": "runs/photos/tokenizer"},
        },
        model={
            "image_size": 112,
            "patch_size": 16,
            "dim": 128,
            "depth": 4,
            "heads": 4,
            "rel_pos_bias": "shared",
        },
        data={
            "batch_size": 64,
            "source": IMAGES | {"part": "train/3"},
            "eval_source": IMAGES | {"part": "test/3"},
            "frame": {"name": "random_resized", "min_scale": 0.2},
            "augment": {
                "token_interpolation": "bicubic",
                "jitter": 0.4,
                "jitter_on": "device",
            },
            "decoded_cache_gib": 1.0,
            "mask": {"name": "blockwise", "max_patches": 19},
        },
        optim={"lr": 1.5e-3, "warmup_steps": 100},
        log={"every_steps": 100},
    )
    if c.is_tiny(arg):
        config = c.smaller(c.synthetic(config), task__target__checkpoint="untrained")
    return config
