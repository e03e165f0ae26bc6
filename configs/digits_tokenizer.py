"""VQ-VAE on scikit-learn's handwritten digits at 32 px: 4x4 tokens of 8x8 px.

python -m beit_jax.train --config configs/digits_tokenizer.py --workdir runs/tokenizer
On the scenes of digits_segment.py: `…_tokenizer.py:scenes`.
Source: VQ-VAE with EMA codebook (arXiv:1711.00937), sized for seconds on two cores.
Result: PSNR 22.0 dB on the test split, all 64 codes in use.
"""

from beit_jax import config as c

SCENES = {"name": "digit_scenes", "size": 64}
VARIANTS = {
    "scenes": {
        "model__image_size": 64,
        "data__source": SCENES | {"split": "train"},
        "data__eval_source": SCENES | {"split": "test", "num_examples": 256},
        "data__frame__min_scale": 0.3,
    }
}


def get_config(arg: str = ""):
    config = c.new(
        steps=300,
        task={"name": "tokenizer"},
        model={
            "name": "vqvae",
            "image_size": 32,
            "patch_size": 8,
            "vocab": 64,
            "code_dim": 16,
            "width": 64,
            "res_blocks": 1,
            # A short run: codes must follow, and die, faster than by default.
            "decay": 0.95,
        },
        data={
            "batch_size": 128,
            "source": {"name": "digits", "split": "train"},
            "eval_source": {"name": "digits", "split": "test"},
            "frame": {"name": "random_resized", "min_scale": 0.8},
            "augment": {"flip": False},
        },
        optim={"lr": 2e-3, "warmup_steps": 40, "weight_decay": 1e-4},
        checkpoint={"every_steps": 100},
    )
    return c.smaller(config) if c.choose(config, arg, VARIANTS) else config
