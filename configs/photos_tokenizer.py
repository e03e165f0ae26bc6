"""VQ-VAE on own photos in class folders at 112 px: 7x7 tokens of 16x16 pixels.

python -m beit_jax.train --config configs/photos_tokenizer.py \
    --config.data.source.path DIR --config.data.eval_source.path DIR \
    --workdir runs/photos/tokenizer
The quickstart takes this and the two recipes that follow; it fits sizes, codes, labels
and steps to the images. Every third image is held out, here and there.
Source: VQ-VAE with EMA codebook (arXiv:1711.00937), sized for minutes on two cores.
Result: PSNR 16.9 dB, all 256 codes in use, perplexity 222 (see photos_finetune).
"""

from beit_jax import config as c

IMAGES = {"name": "folder", "path": "data/photos"}


def get_config(arg: str = ""):
    config = c.new(
        steps=1000,
        task={"name": "tokenizer"},
        model={
            "name": "vqvae",
            "image_size": 112,
            "patch_size": 16,
            "vocab": 256,
            "code_dim": 32,
            "width": 128,
            "res_blocks": 1,
            "restart_below": 0.25,
        },
        data={
            "batch_size": 32,
            "source": IMAGES | {"part": "train/3"},
            "eval_source": IMAGES | {"part": "test/3"},
            "frame": {"name": "random_resized", "min_scale": 0.2},
            "decoded_cache_gib": 1.0,
        },
        optim={"lr": 2e-3, "warmup_steps": 100, "weight_decay": 1e-4},
        log={"every_steps": 50},
    )
    return c.smaller(c.synthetic(config)) if c.is_tiny(arg) else config
