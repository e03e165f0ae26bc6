"""VQ-VAE on the frames of CamVid at 192x256 px: 12x16 tokens of 16x16 pixels.

python -m beit_jax.train --config configs/camvid_tokenizer.py \
    --workdir runs/camvid/tokenizer
Source: VQ-VAE with EMA codebook (arXiv:1711.00937), sized for minutes on two cores.
Result: PSNR 21.4 dB on the val split, 251 of 256 codes in use, perplexity 144.
"""

from beit_jax import config as c

IMAGES = {"name": "camvid", "path": "data/camvid"}


def get_config(arg: str = ""):
    config = c.new(
        steps=800,
        task={"name": "tokenizer"},
        model={
            "name": "vqvae",
            "image_size": (192, 256),
            "patch_size": 16,
            "vocab": 256,
            "code_dim": 32,
            "width": 128,
            "res_blocks": 1,
            "restart_below": 0.25,
        },
        data={
            "batch_size": 16,
            "source": IMAGES | {"split": "train"},
            "eval_source": IMAGES | {"split": "val"},
            "frame": {"name": "random_resized", "min_scale": 0.1},
            "decoded_cache_gib": 1.0,
        },
        optim={"lr": 2e-3, "warmup_steps": 100, "weight_decay": 1e-4},
        log={"every_steps": 50},
    )
    return c.smaller(c.synthetic(config)) if c.is_tiny(arg) else config
