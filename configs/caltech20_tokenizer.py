"""VQ-VAE on 20 classes of Caltech-101 at 96 px: 6x6 tokens of 16x16 pixels.

python -m beit_jax.train --config configs/caltech20_tokenizer.py \
    --workdir runs/caltech20/tokenizer
Images are read out of data/caltech20a.tar, which is never unpacked; its folders are
caltech20a/{train,val}/CLASS. Point --config.data.source.path elsewhere, and
--config.data.eval_source.path too. Every tenth training image is left for validation,
here and in the recipes that follow.
Source: VQ-VAE with EMA codebook (arXiv:1711.00937), sized for minutes on two cores.
Result: PSNR 16.8 dB on the val split, all 256 codes in use, perplexity 208.
"""

from beit_jax import config as c

IMAGES = {"name": "folder", "path": "data/caltech20a.tar"}


def get_config(arg: str = ""):
    config = c.new(
        steps=1000,
        task={"name": "tokenizer"},
        model={
            "name": "vqvae",
            "image_size": 96,
            "patch_size": 16,
            "vocab": 256,
            "code_dim": 32,
            "width": 128,
            "res_blocks": 1,
            "restart_below": 0.25,
        },
        data={
            "batch_size": 32,
            "source": IMAGES | {"split": "train", "part": "train"},
            "eval_source": IMAGES | {"split": "val"},
            "frame": {"name": "random_resized", "min_scale": 0.2},
            "decoded_cache_gib": 1.0,
        },
        optim={"lr": 2e-3, "warmup_steps": 100, "weight_decay": 1e-4},
        log={"every_steps": 50},
    )
    return c.smaller(c.synthetic(config)) if c.is_tiny(arg) else config
